"""Which samples the page of predictions shows."""

from typing import Any

import pytest

from dense_prediction.evaluation.showing import spread_samples


BAD = None


@pytest.mark.parametrize(
    ("split", "shown"),
    [
        ([*range(1, 102)], [1, 26, 51, 76]),
        ([*range(1, 9)], [1, 3, 5, 7]),
        ([1, 2], [1, 2]),
        ([BAD, 2, BAD, BAD, 5, 6, 7, BAD], [2, 5, 7]),
        ([BAD, BAD], []),
    ],
)
def test_samples_come_from_all_over_the_split(split: list[Any], shown: list[int]) -> None:
    assert list(spread_samples(split, 4)) == shown
