"""Boxes are computed with arrays as torchvision computes them with tensors, to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_area, box_convert, clip_boxes_to_image

from dense_prediction.data.annotations.instances import Instance, instance_fields, to_corners
from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.samples import new_sample
from dense_prediction.data.tensors import to_tensors


SIZE = (37, 53)
NUMBERS = st.floats(-60, 120) | st.integers(-60, 120) | st.sampled_from([0.1, 1 / 3, 53.0, 37.0, 1e-9, float("nan")])
BOXES = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=5)
FORMATS = ("xywh", "xyxy", "cxcywh")


@pytest.mark.parametrize("box_format", FORMATS)
@given(rows=BOXES)
def test_corners_are_those_of_torchvision(box_format: str, rows: list[list[float]]) -> None:
    expected = box_convert(torch.tensor(rows, dtype=torch.float64).reshape(-1, 4), box_format, "xyxy")
    found = to_corners(np.array(rows, dtype=np.float64).reshape(-1, 4), box_format)
    assert np.array_equal(found, expected.numpy(), equal_nan=True)


def fields_of_torch(rows: list[list[float]], box_format: str) -> dict[str, torch.Tensor] | None:
    """As version 0.1.0 computed them; None for bad boxes."""
    corners = box_convert(torch.tensor(rows, dtype=torch.float64).reshape(-1, 4), box_format, "xyxy")
    boxes = clip_boxes_to_image(corners, SIZE)
    if not all(right > left and bottom > top for left, top, right, bottom in boxes.tolist()):
        return None
    boxes = boxes.float()
    return {"boxes": boxes, "areas": torch.tensor(box_area(boxes).tolist(), dtype=torch.float32)}


@pytest.mark.parametrize("box_format", FORMATS)
@given(rows=BOXES)
def test_boxes_and_areas_are_those_of_torchvision(box_format: str, rows: list[list[float]]) -> None:
    instances = [Instance(row, 1, "cat") for row in rows]
    expected = fields_of_torch(rows, box_format)
    if rows and all(0 <= side <= 1 for row in rows for side in row):
        expected = None
    if expected is None:
        with pytest.raises(BadSample):
            instance_fields(instances, SIZE, "picture", box_format)
        return
    found = instance_fields(instances, SIZE, "picture", box_format)
    for column, tensor in expected.items():
        assert found[column].dtype == np.float32
        assert np.array_equal(found[column], tensor.numpy())


def test_the_columns_of_a_sample_become_tensors() -> None:
    """Of their own types and their own memory."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[2:5, 3:9] = True
    fields = instance_fields([Instance([3, 2, 6, 3], 1, "cat", True, mask=mask)], SIZE, "picture", masks=True)
    image = Image.fromarray(np.arange(np.prod(SIZE) * 3, dtype=np.uint8).reshape(*SIZE, 3))
    maps = {"semantic_map": np.ones(SIZE, dtype=np.int64), "segment_map": np.ones(SIZE, dtype=np.int64)}
    for array in (fields | maps).values():
        array.setflags(write=False)
    sample = to_tensors(new_sample(image, "picture", 7) | fields | maps)
    assert (sample["name"], sample["image_id"]) == ("picture", 7)
    assert np.array_equal(sample["image"].permute(1, 2, 0), np.asarray(image))
    assert {
        column: (type(value), value.dtype) for column, value in sample.items() if column not in ("name", "image_id")
    } == {
        "image": (tv_tensors.Image, torch.uint8),
        "boxes": (tv_tensors.BoundingBoxes, torch.float32),
        "labels": (torch.Tensor, torch.int64),
        "is_crowd": (torch.Tensor, torch.bool),
        "areas": (torch.Tensor, torch.float32),
        "masks": (tv_tensors.Mask, torch.bool),
        "semantic_map": (tv_tensors.Mask, torch.int64),
        "segment_map": (tv_tensors.Mask, torch.int64),
    }
    assert (sample["boxes"].canvas_size, sample["areas"].tolist()) == (SIZE, [18.0])
    sample["semantic_map"][:] = 0
    assert maps["semantic_map"].all()
