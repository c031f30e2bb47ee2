"""The order of the data and the randomness of its augmentation, as pure functions of the seed and a position.

Training reads one endless stream. What stands at a position does not depend on what was read before, by how many
workers, or in how many runs, so that a resumed run only has to know its position. The stream goes over the end of an
epoch without a short batch, on which the batch norm over UperNet's 1 x 1 pooling would fail.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from ..data.samples import EndlessSamples, Sample, Split, Stream
from ..errors import UserError
from ..seeds import mix
from .transforms import EvaluationTransform, Example, TrainingTransform, has_labels
from .types import Batch


MOST_SKIPPED = 1000
"""Bad samples in a row, after which a stream is given up."""


class ShuffledSplit:
    """Position p is sample p % n of a fresh permutation of the n samples in each epoch p // n."""

    def __init__(self, split: Split, seed: int) -> None:
        self.split = split
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, position: int) -> Sample | None:
        epoch, place = divmod(position, len(self.split))
        return self.split[self._permutation(epoch)[place]]

    def _permutation(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, 0, epoch))
            self._shuffled = (epoch, torch.randperm(len(self.split), generator=generator).tolist())
        return self._shuffled[1]


class TrainingStream(Dataset[Example]):
    """The transformed sample at each position of an endless shuffled stream; a bad one gives its place to the next."""

    def __init__(self, split: Split, transform: TrainingTransform, seed: int) -> None:
        shuffled = split.shuffled(seed) if isinstance(split, Stream) else ShuffledSplit(split, seed)
        self.samples: EndlessSamples = shuffled
        self.transform = transform
        self.seed = seed

    def __getitem__(self, position: int) -> Example:
        for candidate in range(position, position + MOST_SKIPPED):
            sample = self.samples[candidate]
            example = None if sample is None else self._transformed(sample, position)
            # Where a few labelled pixels were lost in a smaller picture, the loss would be 0 / 0.
            if example is not None and has_labels(example):
                return example
        raise UserError(
            f"{MOST_SKIPPED} samples in a row from position {position} are bad (see the log for their names) or "
            "have no labelled pixel after their augmentation"
        )

    def _transformed(self, sample: Sample, position: int) -> Example:
        # Augmentation draws from the global generator, which the model's own randomness (drop path) also uses.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(self.seed, 1, position))
            return self.transform(sample)


class EvaluationSet(Dataset[Example | None]):
    """Every sample of a split once, in order; None for a bad one that is skipped."""

    def __init__(self, split: Split, transform: EvaluationTransform) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Example | None:
        sample = self.split[index]
        return None if sample is None else self.transform(sample)


class EvaluationLoader(DataLoader[Example | None]):
    """Batches without the samples that are skipped; a batch of nothing else is left out."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch names a class of its own
        return filter(None, super().__iter__())


def training_loader(
    stream: TrainingStream, positions: range, batch_size: int, workers: int, size_divisor: int = 1
) -> DataLoader[Example]:
    """Batches of the given positions of the stream, in order; their number must be a multiple of `batch_size`."""
    return DataLoader(
        stream,
        batch_size,
        sampler=positions,
        num_workers=workers,
        collate_fn=partial(collate, size_divisor=size_divisor),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader's own seed must not be drawn from the model's generator
    )


def evaluation_loader(
    data: EvaluationSet, indices: range, workers: int, batch_size: int = 1, size_divisor: int = 1
) -> EvaluationLoader:
    """Batches in order, by default of single images, because each may have its own size."""
    return EvaluationLoader(
        data,
        batch_size,
        sampler=indices,
        num_workers=workers,
        collate_fn=partial(collate, size_divisor=size_divisor),
        generator=torch.Generator(),
    )


def collate(examples: list[Example | None], size_divisor: int = 1) -> Batch:
    """One batch: images side by side, padded at the right and bottom with zeros, everything else in a list.

    Args:
        examples: of any sizes; None is left out, and of nothing else an empty batch is made.
        size_divisor: the padded height and width are the smallest multiples of it that all images fit into.
    """
    good = [example for example in examples if example is not None]
    if not good:
        return {}
    images = [example["pixel_values"] for example in good]
    size = [-(-max(sides) // size_divisor) * size_divisor for sides in zip(*(image.shape[1:] for image in images))]
    return {
        "pixel_values": torch.stack([_pad(image, size) for image in images]),
        "pixel_mask": torch.stack([_pad(torch.ones(image.shape[1:], dtype=torch.int64), size) for image in images]),
        "targets": [{key: value for key, value in example.items() if key != "pixel_values"} for example in good],
    }


def _pad(image: torch.Tensor, size: list[int]) -> torch.Tensor:
    """(..., h, w) -> (..., *size)"""
    height, width = image.shape[-2:]
    return pad(image, (0, size[1] - width, 0, size[0] - height))
