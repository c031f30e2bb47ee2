"""Scripts run inside the test's process, and tiny model folders for them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from dense_prediction import command_line
from dense_prediction.batches.options import TransformOptions
from dense_prediction.evaluation.tasks import find_task
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model
from dense_prediction.models.heads import find_head
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.models.saved_models import build_processor
from miniature_heads import FIELDS, LABELS, THINGS


HEAD_OF_TASK: dict[str, str] = {
    "semantic_segmentation": "upernet",
    "instance_segmentation": "mask2former",
    "panoptic_segmentation": "mask2former",
    "object_detection": "deformable_detr",
}
"""And a head for each."""


def run_script(script: ModuleType, *arguments: object) -> int:
    """`python scripts/SCRIPT.py ARGUMENTS` inside this process; returns the exit code."""
    before, sys.argv = sys.argv, [f"{script.__name__}.py", *map(str, arguments)]
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        with pytest.raises(SystemExit) as ended:
            command_line.run(script.main)
    finally:
        sys.argv = before
    return ended.value.code


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr, without `error: ` before it."""
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: "), line
    return line.removeprefix("error: ")


def save_model(
    folder: Path, task: str, backbone_file: Path, labels: Sequence[str] = LABELS, things: Sequence[int] = THINGS
) -> Path:
    """A model for the task with random weights, the same each time, as train.py saves one."""
    torch.manual_seed(0)
    head = HeadOptions(name=HEAD_OF_TASK[task], config=FIELDS[HEAD_OF_TASK[task]])
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(head.name).out_features)
    build_model(head, backbone, list(labels), find_task(task), things).save_pretrained(folder)
    build_processor(head, transforms()).save_pretrained(folder)
    return folder


def transforms(**fields: Any) -> TransformOptions:
    return TransformOptions(**{"crop_size": (64, 64)} | fields)
