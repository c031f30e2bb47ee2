"""Every committed recipe is built: its data from a made-up dataset of its format, its model without memory."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from test_recipes import COMMITTED, RECIPES
from transformers import PreTrainedModel

from dense_prediction.batches.streams import collate
from dense_prediction.batches.transforms import EvaluationTransform, TrainingTransform
from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.coco_panoptic import CocoPanopticOptions
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.evaluation.tasks import TASKS, find_task
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model, encoder_of
from dense_prediction.models.heads import find_head
from dense_prediction.models.options import BackboneOptions
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.training.optimization import build_optimizer, parameter_groups
from dense_prediction.training.processes.step_size import samples_per_step
from dense_prediction.training.schedules import build_scheduler, training_steps
from modeling_vit_comer import ViTCoMerPreTrainedModel


PROCESSES = 8
COCO_IMAGES = 118287
SIZE = (48, 64)
COCO_CLASSES = 80


@pytest.fixture(autouse=True)
def without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published trunks keep their shapes alone."""

    def from_trunk(cls: type[ViTCoMerPreTrainedModel], trunk: str, **fields: Any) -> ViTCoMerPreTrainedModel:
        library, name = trunk.split("/")
        assert library == "timm"
        assert timm.is_model_pretrained(name), name
        trunk_config = {"model_type": "timm_wrapper", "architecture": name.split(".")[0]}
        return cls(cls.config_class(trunk_config=trunk_config, **fields))

    monkeypatch.setattr(ViTCoMerPreTrainedModel, "from_trunk", classmethod(from_trunk), raising=False)


@cache
def backbone_of(recipe: str, out_features: str) -> PreTrainedModel:
    with torch.device("meta"):
        return build_backbone(BackboneOptions(**json.loads(recipe)), json.loads(out_features))


def model_of(recipe: Recipe, labels: list[str]) -> PreTrainedModel:
    fields = vars(recipe.backbone) | {"trunk_weights": None}
    fields = {key: value for key, value in fields.items() if not key.startswith("__")}
    backbone = backbone_of(json.dumps(fields), json.dumps(find_head(recipe.head.name).out_features))
    with torch.device("meta"):
        return build_model(recipe.head, backbone, labels, TASKS[recipe.task])


def write_images(folder: Path, names: list[str], mode: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.zeros((*SIZE, 3) if mode == "RGB" else SIZE, dtype=np.uint8)
        pixels[: SIZE[0] // 2] = 1  # two classes, one of which `reduce_labels` takes for void
        Image.fromarray(pixels).save(folder / name)


def write_folders(options: FoldersOptions, root: Path) -> None:
    for images, masks in zip(options.images.values(), options.masks.values(), strict=True):
        write_images(root / images, ["a.png", "b.png"], "RGB")
        write_images(root / masks, [f"a{options.mask_suffix}", f"b{options.mask_suffix}"], "L")


def write_coco(options: CocoOptions, root: Path) -> None:
    for split, annotations in options.annotations.items():
        write_images(root / options.images[split], ["1.png", "2.png"], "RGB")
        square = [4, 4, 40, 4, 40, 40, 4, 40]
        tree = {
            "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in (1, 2)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 7, "bbox": [4, 4, 36, 36], "area": 1296, "iscrowd": 0}
                | {"segmentation": [square]}
                for i in (1, 2)
            ],
            "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(COCO_CLASSES)],
        }
        path = root / annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))


def write_panoptic(options: CocoPanopticOptions, root: Path) -> None:
    for split, annotations in options.annotations.items():
        write_images(root / options.images[split], ["1.png", "2.png"], "RGB")
        write_images(root / options.masks[split], ["1.png", "2.png"], "RGB")  # the colours 0 and 1 + 256 + 65536
        segment = {"id": 0x010101, "category_id": 7, "area": 24 * 64, "iscrowd": 0, "bbox": [0, 0, 64, 24]}
        tree = {
            "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in (1, 2)],
            "annotations": [{"image_id": i, "file_name": f"{i}.png", "segments_info": [segment]} for i in (1, 2)],
            "categories": [{"id": i + 1, "name": f"class {i}", "isthing": i % 2} for i in range(COCO_CLASSES)],
        }
        path = root / annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))


def write_dataset(options: DatasetsOptions, root: Path) -> None:
    write_images(root / "files", ["image.png"], "RGB")
    write_images(root / "files", ["label.png"], "L")
    columns = {options.image_column: "image.png", options.label_column: "label.png"}
    rows = {column: [str(root / "files" / name)] * 2 for column, name in columns.items()}
    features = datasets.Features({column: datasets.Image() for column in columns})
    for split in filter(None, (options.train_split, options.validation_split, options.test_split)):
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


@pytest.fixture(scope="session")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a recipe's dataset, made once for all that describe it alike."""
    write = {
        "folders": write_folders,
        "coco": write_coco,
        "coco_panoptic": write_panoptic,
        "datasets": write_dataset,
    }
    roots: dict[str, Path] = {}

    def find(options: DataOptions) -> Path:
        key = repr(options)
        if key not in roots:
            roots[key] = tmp_path_factory.mktemp("data")
            write[options.format](options, roots[key])
        return roots[key]

    return find


@pytest.fixture(params=COMMITTED, ids=lambda path: path.relative_to(RECIPES).with_suffix("").as_posix())
def recipe(request: pytest.FixtureRequest, root_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """A committed recipe with the made-up data in place of its own."""
    written = load_recipe(request.param)
    if written.data.path == "synthetic_shapes":
        return written
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return load_recipe(request.param, [f"data.path={root_of(written.data)}"])


def test_its_data_makes_batches(recipe: Recipe) -> None:
    data = load_data(recipe.data, find_task(recipe.task))
    for split, masks in getattr(recipe.data, "masks", {}).items():
        assert Path(masks).name == Path(recipe.data.images[split]).name, "as ADE20K and COCO-Stuff are unpacked"
    head, training = find_head(recipe.head.name), TrainingTransform(recipe.transforms)
    divisor = math.lcm(recipe.transforms.size_divisor, head.size_divisor)
    batch = collate([training(data.train[i]) for i in range(2)], divisor)
    assert min(batch["pixel_values"].shape[-2:]) >= 64, "large enough to learn from"
    assert head.loss_inputs(batch, TASKS[recipe.task]).keys() > {"pixel_values"}
    assert all(target["labels"].numel() for target in batch["targets"] if "labels" in target)
    measured = collate([EvaluationTransform(recipe.transforms)(data.validation[0])], divisor)
    assert head.model_inputs(measured)["pixel_values"].shape[:2] == (1, 3)
    assert measured["targets"][0]["original_size"] == tuple(data.validation[0]["image"].shape[-2:])


def test_its_model_and_its_run_are_built(recipe: Recipe) -> None:
    model = model_of(recipe, load_data(recipe.data, find_task(recipe.task)).labels)
    groups = parameter_groups(model, recipe.optimization)
    trained = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = [parameter for parameter in encoder_of(model).trunk.parameters() if not parameter.requires_grad]
    assert bool(frozen) == recipe.backbone.freeze_trunk

    steps = training_steps(recipe.training, COCO_IMAGES, PROCESSES)
    optimizer = build_optimizer(model, recipe.optimization)
    build_scheduler(optimizer, recipe, steps)
    assert recipe.training.evaluate_every <= steps
    assert steps / recipe.training.checkpoint_every < 200, "a run should not write checkpoints all the time"


def test_the_recipes_have_the_paper_s_batches_and_lengths() -> None:
    for path in COMMITTED:
        recipe = load_recipe(path)
        training = recipe.training
        if path.parent.name in ("ade20k", "coco_stuff164k", "coco"):
            assert samples_per_step(training, PROCESSES) == training.samples_per_step == 16, path
        if path.stem.endswith(("_1x", "_3x")):
            assert training_steps(training, COCO_IMAGES, PROCESSES) == {"1x": 88716, "3x": 266146}[path.stem[-2:]]


@pytest.mark.parametrize(("size", "millions"), [("t", 38.7), ("s", 61.4), ("b", 144.7)])
def test_upernet_has_the_printed_size(size: str, millions: float) -> None:
    recipe = load_recipe(RECIPES / f"semantic_segmentation/ade20k/upernet_vit-comer-{size}.yaml")
    model = model_of(recipe, [f"class {index}" for index in range(150)])
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.06)
