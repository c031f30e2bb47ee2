"""How many samples a step sees, and whether the learning rate is meant for so many."""

import logging

from ...failures import SMALLER_BATCHES
from ...recipes.schema import TrainingOptions


_logger = logging.getLogger(__name__)

_EXCEPTION = "accumulated passes make one batch, but for batch norms, which see one pass at a time; "


def samples_per_step(training: TrainingOptions, num_processes: int) -> int:
    """Of all processes together."""
    return training.batch_size * training.gradient_accumulation * num_processes


def smaller_passes(training: TrainingOptions) -> str:
    """What to do for want of memory in a training, so that the run can still be resumed where there is a way."""
    size, accumulation = training.batch_size, training.gradient_accumulation
    ways = []
    if size % 2 == 0:
        ways.append(SMALLER_BATCHES)
    elif size > 1:
        ways.append(f"set training.batch_size=1 and training.gradient_accumulation={size * accumulation}")
    if not training.gradient_checkpointing:
        ways.append("set training.gradient_checkpointing=true")
    return ", or ".join(ways) or (
        "make the pictures smaller (transforms.crop_size, or shortest_edges and longest_edge) and start again with "
        "overwrite=true"
    )


def warn_of_step_size(training: TrainingOptions, num_processes: int) -> None:
    """Log it if the run's steps see another number of samples than the recipe's learning rate is meant for."""
    wanted, seen = training.samples_per_step, samples_per_step(training, num_processes)
    if wanted is None or seen == wanted:
        return
    _logger.warning(
        "%sa step sees %d samples (training.batch_size=%d, training.gradient_accumulation=%d, processes: %d), but the "
        "learning rate is meant for %d: %s, or scale optimization.learning_rate and set training.samples_per_step=%d",
        _EXCEPTION if wanted % (training.batch_size * num_processes) == 0 else "",
        *(seen, training.batch_size, training.gradient_accumulation, num_processes, wanted),
        _mending(wanted, training.batch_size * num_processes),
        seen,
    )


def _mending(wanted: int, samples_per_pass: int) -> str:
    if wanted % samples_per_pass == 0:
        return f"set training.gradient_accumulation={wanted // samples_per_pass}"
    return f"choose a training.batch_size of which all processes together make a divisor of {wanted}"
