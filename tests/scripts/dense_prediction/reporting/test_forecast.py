"""How long a run is going to take."""

import pytest
import torch

from dense_prediction.reporting.forecast import Forecast, duration


def forecast(*seconds: float) -> float | None:
    clock = Forecast(torch.device("cpu"))
    for each in seconds:
        clock.note(each)
    return clock.seconds_per_step


def test_the_first_steps_do_not_count() -> None:
    assert forecast(9.0, 9.0, *[0.1] * 4) is None
    assert forecast(9.0, 9.0, *[0.1] * 5) == pytest.approx(0.1)


def test_of_slow_steps_fewer_are_enough() -> None:
    assert forecast(20.0, 10.0) is None
    assert forecast(20.0, 10.0, 6.0) == 6.0
    assert forecast(50.0, 40.0) == 40.0, "where nobody would wait for a third"


def test_steps_are_measured_until_it_is_known() -> None:
    clock = Forecast(torch.device("cpu"))
    for _ in range(7):
        assert clock.seconds_per_step is None
        with clock.step():
            pass
    known = clock.seconds_per_step
    assert known is not None and 0 < known < 1
    with clock.step():
        clock.note = None  # type: ignore[assignment,method-assign]  # not called any more
    assert clock.seconds_per_step == known


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (99, "99 s"), (840, "14 min"), (3 * 3600 + 20 * 60, "3 h 20 min"), (52 * 3600, "2 days 4 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
