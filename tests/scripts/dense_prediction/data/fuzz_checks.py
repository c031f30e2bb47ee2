"""What has to be true of every sample that a damaged data set gives nevertheless."""

from contextlib import suppress
from typing import Any

import torch

from dense_prediction.data.inspection.findings import check as check_look
from dense_prediction.data.inspection.findings import describe
from dense_prediction.data.inspection.looking import inspect
from dense_prediction.data.loading import Data, load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.data.samples import IGNORE_INDEX, VOID, Sample
from dense_prediction.errors import UserError
from dense_prediction.tasks import Task


def read_all(options: DataOptions, task: Task) -> bool:
    """A look at the data, then every sample of every split; whether one could be read."""
    data = load_data(options, task)
    with suppress(UserError):  # which is what a look is for
        inspection = inspect(options, task, data, ("train_split", "validation_split"))
        assert all(list(describe(inspection, options, data.labels)))
        check_look(inspection, data.labels)
    return sum(read_split(split, data, task) for split in (data.train, data.validation)) > 0


def read_split(split: Any, data: Data, task: Task) -> int:
    read = 0
    for index in range(len(split)):
        try:
            sample = split[index]
        except UserError as error:
            assert str(error).strip()
            continue
        if sample is not None:
            check(sample, data, task)
            read += 1
    return read


def check(sample: Sample, data: Data, task: Task) -> None:
    """What transforms, losses and metrics rely on."""
    assert isinstance(sample["name"], str) and sample["name"].encode()
    assert isinstance(sample["image_id"], int) and abs(sample["image_id"]) < 2**63
    channels, height, width = sample["image"].shape
    assert channels == 3 and height > 0 and width > 0 and sample["image"].dtype == torch.uint8
    assert data.labels and all(isinstance(label, str) and label.encode() for label in data.labels)
    assert set(task.columns) <= sample.keys()
    if "semantic_map" in sample:
        _check_classes(sample["semantic_map"], (height, width), len(data.labels))
    else:
        _check_objects(sample, len(data.labels), (height, width))


def _check_classes(semantic_map: torch.Tensor, size: tuple[int, int], num_labels: int) -> None:
    assert semantic_map.shape == size
    labelled = semantic_map[semantic_map != IGNORE_INDEX]
    assert len(labelled) > 0 and labelled.min() >= 0 and labelled.max() < num_labels


def _check_objects(sample: Sample, num_labels: int, size: tuple[int, int]) -> None:
    labels, crowds = sample["labels"], sample["is_crowd"]
    assert labels.dtype == torch.int64 and crowds.dtype == torch.bool and len(crowds) == len(labels)
    assert ((labels >= 0) & (labels < num_labels)).all()
    if "segment_map" in sample:
        assert sample["segment_map"].shape == size
        assert set(sample["segment_map"].unique().tolist()) - {VOID} == set(range(len(labels)))
        return
    boxes, areas = sample["boxes"].as_subclass(torch.Tensor), sample["areas"]
    assert boxes.shape == (len(labels), 4) and areas.shape == (len(labels),)
    assert boxes.isfinite().all() and areas.isfinite().all() and (areas >= 0).all()
    assert (boxes >= 0).all() and (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    if "masks" in sample:
        assert sample["masks"].shape == (len(labels), *size) and sample["masks"].dtype == torch.bool
        assert sample["masks"].flatten(1).any(1).all()
