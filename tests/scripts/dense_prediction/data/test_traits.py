"""What the settings need to know of the pictures is seen in them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from dense_prediction.data.inspection import traits
from dense_prediction.data.inspection.traits import find_traits, has_up
from dense_prediction.data.samples import IGNORE_INDEX, Sample


class Drawn:
    """A split of samples that `draw` makes of their indices."""

    glance = None
    num_skipped = 0
    skipped = torch.zeros(0)

    def __init__(self, length: int, draw: Callable[[int], Sample | None]) -> None:
        self.length, self.draw = length, draw

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample | None:
        return self.draw(index)


def noise(index: int, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(index).integers(0, 256, (3, height, width), dtype=np.uint8))


def with_map(image: torch.Tensor, ids: torch.Tensor) -> Sample:
    return {"image": tv_tensors.Image(image), "semantic_map": tv_tensors.Mask(ids), "name": "", "image_id": 0}


def with_boxes(image: torch.Tensor, boxes: list[list[float]], **fields: Any) -> Sample:
    size = tuple(image.shape[-2:])
    count = len(boxes)
    return {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(torch.tensor(boxes).reshape(-1, 4), format="XYXY", canvas_size=size),
        "labels": torch.zeros(count, dtype=torch.int64),
        "is_crowd": torch.zeros(count, dtype=torch.bool),
    } | fields


def test_sizes_and_objects() -> None:
    boxes = [[0.0, 0.0, 10.0, 40.0], [5.0, 5.0, 9.0, 9.0], [0.0, 0.0, 30.0, 30.0]]
    is_crowd = torch.tensor([False, False, True])
    samples = {1: with_boxes(noise(1, 100, 100), boxes, is_crowd=is_crowd), 2: with_boxes(noise(2, 50, 200), [])}
    found = find_traits(Drawn(3, samples.get), 1)
    assert found is not None
    assert (found.pictures, found.looked_at, found.most) == (3, 2, 3)
    assert sorted(found.sizes) == [(50, 200), (100, 100)]
    assert found.object_sides == [4.0, 20.0]
    assert found.object_shares == pytest.approx([0.04, 0.2])
    assert find_traits(Drawn(3, lambda index: None), 1) is None


def test_thin_things_are_lost_in_cells() -> None:
    blocks = torch.zeros(96, 96, dtype=torch.int64)
    blocks[16:64, 16:64] = 1
    lines = torch.zeros(96, 96, dtype=torch.int64)
    lines[::16] = 1
    thick, thin = (
        find_traits(Drawn(2, lambda index, ids=ids: with_map(noise(0, 96, 96), ids)), 2) for ids in (blocks, lines)
    )
    assert thick is not None and thin is not None
    assert thick.kept_by_cells > 0.9 and thin.kept_by_cells < 0.1
    assert thin.class_pixels == pytest.approx([15 / 16, 1 / 16])


def test_a_map_with_nothing_but_void_or_one_class() -> None:
    for value in (IGNORE_INDEX, 0):
        found = find_traits(Drawn(1, lambda index, value=value: with_map(noise(0), torch.full((48, 64), value))), 3)
        assert found is not None and found.kept_by_cells == 1.0


def test_segments() -> None:
    segments = torch.full((48, 64), -1)
    segments[:16, :16] = 0
    sample = {"image": tv_tensors.Image(noise(0)), "segment_map": tv_tensors.Mask(segments)}
    sample |= {"labels": torch.tensor([4]), "is_crowd": torch.tensor([False])}
    found = find_traits(Drawn(1, lambda index: sample), 5)
    assert found is not None and (found.object_sides, found.most) == ([16.0], 1)


@pytest.mark.parametrize("what", ["sky", "objects", "nothing", "sides"])
def test_an_up_is_found_where_there_is_one(what: str) -> None:
    """In the colours or in what is annotated; a left and a right is none."""

    def draw(index: int) -> Sample:
        image, (left, top) = noise(index), np.random.default_rng(index).uniform(0, (56, 40))
        if what == "sky":
            image[2, :16] = 255
        if what == "sides":
            image[2, :, :16] = 255
        top = top / 3 if what == "objects" else top
        return with_boxes(image, [[left, top, left + 8, top + 8]])

    found = find_traits(Drawn(60, draw), 1)
    assert found is not None and found.has_up == (what in ("sky", "objects"))


def test_slices_of_one_block_have_no_up() -> None:
    """Which is as bright at one place in all of them; a scene with a sky has one all the same."""
    generator = torch.Generator().manual_seed(0)
    block, noise_of_each = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(30, 4, 8, 8, generator=generator)
    assert not has_up(0.5 * block + noise_of_each)
    sky = torch.zeros(1, 4, 8, 8)
    sky[:, :3, :2] = 4.0
    assert has_up(0.5 * block + noise_of_each + sky)


def test_chance_is_rarely_taken_for_an_up() -> None:
    generator = torch.Generator().manual_seed(0)
    wrong = sum(has_up(torch.randn(40, 4, 8, 8, generator=generator)) for _ in range(100))
    assert wrong <= 10
    assert has_up(torch.randn(5, 4, 8, 8, generator=generator)), "of so few nobody can tell"


def test_no_more_pictures_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(traits.time, "monotonic", lambda: next(clock))
    found = find_traits(Drawn(1000, lambda index: with_boxes(noise(index), [])), 1, seconds=5.0)
    assert found is not None and found.looked_at == 6


def test_a_run_draws_the_same_after_a_look() -> None:
    before = torch.get_rng_state()
    find_traits(Drawn(10, lambda index: with_boxes(noise(index), [])), 1)
    assert torch.equal(torch.get_rng_state(), before)
