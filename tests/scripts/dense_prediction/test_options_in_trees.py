"""Options as nested dicts and as dotted keys."""

from dense_prediction.options import flatten


def test_keys_that_are_numbers() -> None:
    """A palette names classes, or ids as masks have them."""
    flat = flatten({"data": {"palette": {"cat": [1, 2, 3], 255: [0, 0, 0]}}, "seed": 0})
    assert flat == {"data.palette.cat": [1, 2, 3], "data.palette.255": [0, 0, 0], "seed": 0}
