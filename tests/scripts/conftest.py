"""A recipe and a dataset in temporary folders, made from the miniatures."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState

from miniature import BACKBONE, ROOT, draw_rows
from miniature_heads import FIELDS, HEADS_AND_TASKS


sys.path.insert(0, str(ROOT / "scripts"))

# The models are so small that threads would only wait for each other, long when other processes use the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its settings for the life of a process; every test starts without them."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny.json"
    path.write_text(json.dumps(BACKBONE))
    return path


@pytest.fixture(scope="module")
def head_name() -> str:
    return "upernet"


@pytest.fixture(scope="module")
def task(head_name: str) -> str:
    return dict(reversed(HEADS_AND_TASKS))[head_name]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path, head_name: str, task: str) -> Path:
    """Six steps on the drawn shapes."""
    tree = {
        "task": task,
        "data": {"path": "synthetic_shapes", "max_validation_samples": 2},
        "transforms": {"base_size": [64, 64], "crop_size": [64, 64]},
        "backbone": {"config": str(backbone_file)},
        "head": {"name": head_name, "config": FIELDS[head_name]},
        "optimization": {"learning_rate": 1.0e-3, "max_grad_norm": 1.0},
        "training": {"steps": 6, "batch_size": 2, "evaluate_every": 6, "checkpoint_every": 2},
    }
    path = tmp_path_factory.mktemp("recipes") / f"{head_name}_tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `datasets.load_dataset` reads, with one training and two validation images of classes 0 and 1."""
    folder = tmp_path_factory.mktemp("dataset")
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    for split, count in (("train", 1), ("validation", 2)):
        images, labels = zip(*draw_rows(count), strict=True)
        rows = datasets.Dataset.from_dict({"image": list(images), "label": list(labels)}, features=columns)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return folder
