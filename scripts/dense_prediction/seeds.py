"""Seeds from a recipe's seed and what they are for."""

import numpy as np


def mix(*numbers: int) -> int:
    """A well-spread 64-bit seed from small numbers that differ little."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
