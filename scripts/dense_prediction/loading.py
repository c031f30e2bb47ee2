"""The order of the data and the randomness of its augmentation, as pure functions of the seed and a position.

Training reads one endless stream. What stands at a position does not depend on what was read before, by how many
workers, or in how many runs, so that a resumed run only has to know its position. The stream goes over the end of an
epoch without a short batch, on which the batch norm over UperNet's 1 x 1 pooling would fail.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .data import Split
from .transforms import EvaluationTransform, Example, TrainingTransform


class TrainingStream(Dataset[Example]):
    """Position p is sample p % n of a fresh permutation of the n samples in each epoch p // n."""

    def __init__(self, split: Split, transform: TrainingTransform, seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, position: int) -> Example:
        epoch, place = divmod(position, len(self.split))
        sample = self.split[self._permutation(epoch)[place]]
        # Augmentation draws from the global generator, which the model's own randomness (drop path) also uses.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mix(self.seed, 1, position))
            return self.transform(sample)

    def _permutation(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, 0, epoch))
            self._shuffled = (epoch, torch.randperm(len(self.split), generator=generator).tolist())
        return self._shuffled[1]


class EvaluationSet(Dataset[Example]):
    """Every sample of a split once, in order, at its full size."""

    def __init__(self, split: Split, transform: EvaluationTransform) -> None:
        self.split = split
        self.transform = transform

    def __getitem__(self, index: int) -> Example:
        return self.transform(self.split[index])


def training_loader(stream: TrainingStream, positions: range, batch_size: int, workers: int) -> DataLoader[Example]:
    """Batches of the given positions of the stream, in order; their number must be a multiple of `batch_size`."""
    return DataLoader(
        stream,
        batch_size,
        sampler=positions,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader's own seed must not be drawn from the model's generator
    )


def evaluation_loader(data: EvaluationSet, indices: range, workers: int) -> DataLoader[Example]:
    """Single images, because each may have its own size."""
    return DataLoader(data, batch_size=1, sampler=indices, num_workers=workers, generator=torch.Generator())


def _mix(*numbers: int) -> int:
    """A well-spread 64-bit seed from small numbers that differ little."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
