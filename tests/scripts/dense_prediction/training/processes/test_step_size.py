"""How many samples a step sees, and the warning of a number that the learning rate is not for."""

import pytest

from dense_prediction.recipes.schema import TrainingOptions
from dense_prediction.training.processes.step_size import warn_of_step_size


def warning_of(
    caplog: pytest.LogCaptureFixture, processes: int, wanted: int | None, batch_size: int = 2, accumulation: int = 1
) -> str:
    training = TrainingOptions(
        steps=1,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        samples_per_step=wanted,
        evaluate_every=1,
        checkpoint_every=1,
    )
    warn_of_step_size(training, processes)
    return caplog.text


@pytest.mark.parametrize(("processes", "accumulation"), [(8, 1), (4, 2), (1, 8)])
def test_the_right_number_is_no_warning(caplog: pytest.LogCaptureFixture, processes: int, accumulation: int) -> None:
    assert warning_of(caplog, processes, 16, accumulation=accumulation) == ""
    assert warning_of(caplog, processes + 1, None, accumulation=accumulation) == ""


@pytest.mark.parametrize(("processes", "accumulation", "mending"), [(1, 1, 8), (4, 1, 2), (8, 2, 1)])
def test_the_accumulation_that_mends_it_is_named(
    caplog: pytest.LogCaptureFixture, processes: int, accumulation: int, mending: int
) -> None:
    text = warning_of(caplog, processes, 16, accumulation=accumulation)
    seen = 2 * processes * accumulation
    assert f"a step sees {seen} samples (training.batch_size=2, training.gradient_accumulation={accumulation}" in text
    assert f"processes: {processes}), but the learning rate is meant for 16" in text
    assert f": set training.gradient_accumulation={mending}, or scale optimization.learning_rate and set" in text
    assert text.rstrip().endswith(f"training.samples_per_step={seen}")
    assert "but for batch norms, which see one pass at a time; a step sees" in text


def test_no_accumulation_mends_a_batch_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    text = warning_of(caplog, 2, 16, batch_size=3)
    assert "batch norms" not in text
    assert "choose a training.batch_size of which all processes together make a divisor of 16, or" in text
