"""What is read of a split for a report: how much, from where, and that the run does not notice."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_prediction.batches.options import TransformOptions
from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.formats.synthetic_shapes import ShapesSplit
from dense_prediction.data.loading import CheckedSplit
from dense_prediction.data.samples import FirstSamples
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.reporting import survey as surveying
from dense_prediction.reporting.survey import SHOWN, spread, survey


TRANSFORMS = TransformOptions(base_size=(64, 64), crop_size=(48, 80), flip=1.0)


class Objects:
    """The sample at each index has so many objects, 10 pixels wide and 20 high, on a picture of its own size."""

    def __init__(self, counts: list[int], bad: tuple[int, ...] = ()) -> None:
        self.counts, self.bad = counts, bad

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.bad:
            raise BadSample(f"sample {index} is bad")
        count = self.counts[index]
        boxes = np.array([[5 * place, 0, 5 * place + 10, 20] for place in range(count)], dtype=np.float32)
        return {
            "image": Image.new("RGB", (100 + index, 60), (index, 100, 200)),
            "name": f"folder/{index}.png",
            "image_id": index,
            "boxes": boxes.reshape(-1, 4),
            "labels": np.arange(count) % 2,
            "is_crowd": np.arange(count) == 4,
            "areas": np.full(count, 150, dtype=np.float32),
        }


def test_what_was_seen_is_counted() -> None:
    found = survey(CheckedSplit(Objects([1, 0, 5, 2]), skip=False))
    assert found is not None
    assert (found.pictures, found.looked_at, found.learnt) == (4, 4, [])
    assert found.sizes == {(60, 100 + index): 1 for index in range(4)}
    assert found.by_class == {0: 1 + 2 + 1, 1: 2 + 1}, "a crowd is none"
    assert found.sides == pytest.approx([200**0.5] * 7)
    assert found.intensities == (0, 0, 200, 200)
    assert found.smallest is not None and found.smallest.cell[2] == "0.png, 100 x 60"
    assert found.most_crowded is not None and found.most_crowded.number == 4
    assert found.most_crowded.cell[2] == "2.png, 102 x 60"
    assert [cell[2].split(",")[0] for cell in found.shown] == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize("length", [1, 5, 12, 13, 121, 1000])
def test_pictures_come_from_all_over_and_each_once(length: int) -> None:
    places = list(spread(length, (12, 120)))
    assert len(places) == len(set(places)) == min(length, 120)
    assert all(0 <= place < length for place in places)
    shown = places[:12]
    assert shown == sorted(shown)
    if length >= 12:
        assert np.diff([0, *shown, length]).max() <= 2 * -(-length // 12)
    if length > 120:
        assert np.diff([0, *sorted(places), length]).max() <= 2 * -(-length // 108)


def test_bad_samples_are_neither_refused_nor_counted(caplog: pytest.LogCaptureFixture) -> None:
    for skip in (False, True):
        split = CheckedSplit(Objects([1, 2, 3], bad=(1,)), skip=skip)
        found = survey(FirstSamples(split, 3))
        assert found is not None and found.looked_at == 2
        assert split.num_skipped == 0
    assert not caplog.records


def test_a_split_of_bad_samples_alone_shows_nothing() -> None:
    found = survey(CheckedSplit(Objects([1, 2], bad=(0, 1)), skip=True))
    assert found is not None and (found.looked_at, found.shown, found.intensities) == (0, [], None)


def test_there_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey(CheckedSplit(Objects([1] * 500), skip=False), seconds=60)
    assert found is not None and found.looked_at == surveying.MOST_PICTURES
    assert len(found.shown) == SHOWN
    found = survey(CheckedSplit(Objects([1] * 500), skip=False), seconds=-1)
    assert found is not None and found.looked_at == SHOWN // 2, "slow pictures, but some of them at least"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_shown_also_as_it_is_learnt(task: str) -> None:
    split = CheckedSplit(ShapesSplit(0, 3, TASKS[task].columns), skip=False)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    found = survey(split, TRANSFORMS)
    again = survey(split, TRANSFORMS)
    assert found is not None and again is not None
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(found.learnt) == 3 and found.learnt[0][2].endswith(", 80 x 48")
    for cell, other in zip(found.learnt, again.learnt, strict=True):
        assert cell[0].tobytes() == other[0].tobytes(), "the same each time"
    assert max(found.learnt[0][0].size) <= 340
    assert np.asarray(found.learnt[0][0]).std() > 5, "a picture and not its normalised numbers"


def test_what_is_learnt_has_the_colours_of_the_picture() -> None:
    as_it_is = TransformOptions(resize="fixed", crop_size=(60, 100), flip=0.0, photometric=False)
    found = survey(CheckedSplit(Objects([1]), skip=False), as_it_is)
    assert found is not None
    (shown,), (learnt,) = found.shown, found.learnt
    assert np.asarray(shown[0]).tolist() == np.asarray(learnt[0]).tolist()
