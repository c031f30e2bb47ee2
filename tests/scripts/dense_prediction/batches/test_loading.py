"""The order of the data and its randomness depend on the seed and a position alone; batches of many sizes."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_prediction.batches.options import TransformOptions
from dense_prediction.batches.streams import (
    EvaluationSet,
    ShuffledSplit,
    TrainingStream,
    collate,
    evaluation_loader,
    training_loader,
)
from dense_prediction.batches.transforms import EvaluationTransform, TrainingTransform
from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.formats.synthetic_shapes import ShapesSplit
from dense_prediction.data.loading import CheckedSplit
from dense_prediction.data.samples import IGNORE_INDEX, Sample
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.tasks import Task


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


def drawn_split(length: int, task: Task = TASKS["semantic_segmentation"]) -> CheckedSplit:
    return CheckedSplit(ShapesSplit(0, length, task.columns), skip=False)


def stream_of(recipe: Recipe, task: Task = TASKS["semantic_segmentation"]) -> TrainingStream:
    return TrainingStream(drawn_split(5, task), TrainingTransform(recipe.transforms), recipe.seed)


def same(one: Any, other: Any) -> bool:
    """Whether two batches, or parts of them, are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other))
    return one == other


class Indices:
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        return index


def test_each_epoch_is_another_permutation() -> None:
    stream = ShuffledSplit(Indices(), seed=0)
    epochs = [[stream[position] for position in range(start, start + 20)] for start in (0, 20)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    assert [stream[position] for position in range(20)] == epochs[0], "going back must give the same order"


@pytest.mark.parametrize("drawn", TASKS.values(), ids=TASKS)
def test_what_stands_at_a_position_does_not_depend_on_the_way_there(recipe: Recipe, drawn: Task) -> None:
    unbroken = list(training_loader(stream_of(recipe, task=drawn), range(8), batch_size=2, workers=0))
    torch.manual_seed(123)
    resumed = list(training_loader(stream_of(recipe, task=drawn), range(4, 8), batch_size=2, workers=2))
    assert len(unbroken) == 4
    assert all(same(before, after) for before, after in zip(unbroken[2:], resumed, strict=True))


def test_augmentation_varies_with_the_position_and_the_seed(recipe: Recipe) -> None:
    transform = TrainingTransform(recipe.transforms)
    one, other = (TrainingStream(drawn_split(1), transform, seed) for seed in (0, 1))
    pictures = [one[0], one[1], other[0]]
    assert len({example["name"] for example in pictures}) == 1
    assert len({example["pixel_values"].numpy().tobytes() for example in pictures}) == 3


def test_data_leaves_the_global_generators_alone(recipe: Recipe) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    next(iter(training_loader(stream_of(recipe), range(2), batch_size=2, workers=0)))
    data = EvaluationSet(drawn_split(2), EvaluationTransform(recipe.transforms))
    assert len(list(evaluation_loader(data, range(2), workers=0))) == 2
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


class Damaged(Indices):
    """Twenty samples; of those in `bad` nothing can be read."""

    bad = (3, 4, 11)

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise BadSample(f"{index}.jpg is damaged")
        return {"index": index, "pixel_values": torch.full((3, 2, 2), float(index))}


def read(split: CheckedSplit, positions: range, workers: int) -> list[int]:
    stream = TrainingStream(split, lambda sample: sample, seed=0)
    batches = training_loader(stream, positions, batch_size=2, workers=workers)
    return [target["index"] for batch in batches for target in batch["targets"]]


def test_a_bad_sample_gives_its_place_to_the_next_good_one() -> None:
    order = ShuffledSplit(Indices(), seed=0)
    expected = []
    for position in range(40):
        while order[position] in Damaged.bad:
            position += 1
        expected.append(order[position])
    split = CheckedSplit(Damaged(), skip=True)
    assert read(split, range(40), workers=0) == expected
    assert split.num_skipped == 3
    assert read(CheckedSplit(Damaged(), skip=True), range(40), workers=2) == expected
    assert read(CheckedSplit(Damaged(), skip=True), range(10, 40), workers=2) == expected[10:], "resumed"


def test_a_sample_whose_labels_are_lost_gives_its_place_to_the_next() -> None:
    """As when the few labelled pixels of a picture are lost while it is made smaller: its loss would be 0 / 0."""
    order = ShuffledSplit(Indices(), seed=0)
    lost = {order[4], order[5]}

    def transform(index: int) -> dict[str, Any]:
        return {"index": index, "semantic_map": torch.full((2, 2), IGNORE_INDEX if index in lost else 0)}

    stream = TrainingStream(Indices(), transform, seed=0)
    assert [stream[place]["index"] for place in (3, 4, 5, 6)] == [order[3], order[6], order[6], order[6]]
    lost |= set(range(20))
    with pytest.raises(UserError, match="1000 samples in a row from position 3"):
        stream[3]


def test_loading_processes_count_and_log_each_bad_sample_once(capfd: pytest.CaptureFixture[str]) -> None:
    split = CheckedSplit(Damaged(), skip=True)
    handler = logging.StreamHandler()  # of the real stderr, which the loading processes write to
    logger = logging.getLogger("dense_prediction.data.bad_samples")
    logger.addHandler(handler)
    try:
        read(split, range(200), workers=2)
    finally:
        logger.removeHandler(handler)
    assert split.num_skipped == 3
    messages = capfd.readouterr().err
    assert [messages.count(f"{index}.jpg is damaged") for index in (*Damaged.bad, 5)] == [1, 1, 1, 0]


def test_bad_samples_are_refused_without_leave() -> None:
    with pytest.raises(UserError, match="jpg is damaged; repair it"):
        read(CheckedSplit(Damaged(), skip=False), range(20), workers=0)
    with pytest.raises(UserError, match="jpg is damaged; repair it"):
        read(CheckedSplit(Damaged(), skip=False), range(20), workers=2)


def test_a_split_of_bad_samples_alone_is_given_up() -> None:
    split = CheckedSplit(Damaged(), skip=True)
    split.split.bad = range(20)
    with pytest.raises(UserError, match="1000 samples in a row from position 0 are bad"):
        read(split, range(2), workers=0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_evaluation_leaves_bad_samples_out(workers: int, batch_size: int) -> None:
    data = EvaluationSet(CheckedSplit(Damaged(), skip=True), lambda sample: sample)
    batches = list(evaluation_loader(data, range(len(data)), workers, batch_size))
    assert [target["index"] for batch in batches for target in batch["targets"]] == [
        index for index in range(20) if index not in Damaged.bad
    ]
    assert all(len(batch["pixel_values"]) == len(batch["targets"]) > 0 for batch in batches)


def test_images_are_padded_at_the_right_and_bottom() -> None:
    images = [torch.rand(3, 5, 9) + 1, torch.rand(3, 7, 4) + 1]
    batch = collate(
        [{"pixel_values": image, "labels": torch.arange(i), "name": "x"} for i, image in enumerate(images)]
    )
    assert batch["pixel_values"].shape == (2, 3, 7, 9)
    assert batch["pixel_mask"].shape == (2, 7, 9)
    assert batch["pixel_mask"].dtype == torch.int64
    for image, padded, mask in zip(images, batch["pixel_values"], batch["pixel_mask"], strict=True):
        height, width = image.shape[1:]
        assert torch.equal(padded[:, :height, :width], image)
        assert mask[:height, :width].all()
        assert mask.sum() == height * width
        assert padded[:, mask == 0].abs().sum() == 0
    assert [target.keys() for target in batch["targets"]] == [{"labels", "name"}] * 2
    assert [len(target["labels"]) for target in batch["targets"]] == [0, 1]


@pytest.mark.parametrize(("divisor", "size"), [(1, (33, 20)), (32, (64, 32)), (11, (33, 22))])
def test_a_batch_has_a_multiple_of_the_divisor(divisor: int, size: tuple[int, int]) -> None:
    batch = collate([{"pixel_values": torch.ones(3, 33, 20)}], divisor)
    assert batch["pixel_values"].shape[2:] == batch["pixel_mask"].shape[1:] == size
    assert batch["pixel_mask"].sum() == 33 * 20


def test_the_loaders_take_the_divisor() -> None:
    transforms = TransformOptions(crop_size=(24, 40))
    stream = TrainingStream(drawn_split(2), TrainingTransform(transforms), 0)
    data = EvaluationSet(drawn_split(2), EvaluationTransform(transforms))
    batch = next(iter(training_loader(stream, range(2), 2, workers=0, size_divisor=32)))
    assert batch["pixel_values"].shape == (2, 3, 32, 64)
    batch = next(iter(evaluation_loader(data, range(2), workers=0, batch_size=2, size_divisor=48)))
    assert batch["pixel_values"].shape == (2, 3, 96, 96)
    assert batch["targets"][1]["original_size"] == (64, 64)
