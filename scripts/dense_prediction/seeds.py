"""Seeds from a recipe's seed and what they are for."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed


def mix(*numbers: int) -> int:
    """A well-spread 64-bit seed from small numbers that differ little."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_step(seed: int, step: int, process: int) -> None:
    """Draw the model's random numbers of a step (drop path, dropout, sampled points) from the step alone.

    So a resumed run needs no saved states of generators, and both trainers draw the same.
    """
    set_seed(mix(seed, 2, step, process) % 2**32)


@contextmanager
def kept_randomness() -> Iterator[None]:
    """What is drawn after it on the CPU is as if nothing had been drawn inside of it."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
