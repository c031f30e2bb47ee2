"""What version 0.1.0 left on disks and on the Hub is still usable, and gives what it gave: see tests/fixtures.

Losses, measures and outputs are compared to the last digit where the arithmetic is that of the machine that the
fixtures were made on; elsewhere other instructions round otherwise, and they are compared as closely as that allows.
"""

import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import pytest
import torch
import yaml
from pycocotools import mask as coco_mask
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSemanticSegmentation, dynamic_module_utils

import finetune_with_trainer
import predict
import train
from dense_prediction.data.loading import load_data
from dense_prediction.data.tables.streaming import StreamedSplit
from dense_prediction.evaluation.tasks import find_task
from dense_prediction.models.backbones import build_backbone
from dense_prediction.options import flatten
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from hub import Hub, serve
from miniature import ROOT
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.deformable_attention import use_deformable_attention_kernel
from remote_code_client import outputs_of
from scripts_in_process import run_script
from test_remote_code import Published


VERSION_BEFORE = ROOT / "tests" / "fixtures" / "version_0_1"
ARCHIVES = ("runs", "repositories", "data")
RECIPES = sorted(path.stem for path in (VERSION_BEFORE / "recipes").glob("*.yaml"))
EXPECTED = json.loads((VERSION_BEFORE / "expected.json").read_text())
FILES_IN_RECIPES = ("data.labels", "backbone.config")
"""Keys that name files; a recipe may hold their paths in another form, as long as they lead to the same files."""


def arithmetic() -> dict[str, str]:
    """What decides how a sum is rounded, beside our code."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0] if info.is_file() else f"model name: {platform.processor()}"
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    known = [name for name in ("model name", "cpu family", "model", "cache size") if name in fields]
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "instructions": instructions} | {name: fields[name] for name in known}


IS_EXACT = arithmetic() == EXPECTED["arithmetic"]

on_cpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="the scripts would take the GPU, which draws and rounds otherwise"
)

A_FEW_LEVELS = 2e-3
"""Relative: how much a loss changes where other instructions resize the pictures, whose bytes they round otherwise."""
A_FEW_PIXELS = 5e-3
"""Absolute: how much a measure changes where rounding decides between two classes."""


def assert_same_numbers(actual: Any, expected: Any, rtol: float = 1e-4, atol: float = 0.0) -> None:
    """Numbers in dicts and lists are the same: to the last digit, or on other machines so far."""
    if IS_EXACT:
        assert actual == expected
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def digest(tensors: Mapping[str, Any]) -> str:
    """Of the names, types, shapes and bytes of all tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, torch.Tensor):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def summary(tensor: torch.Tensor) -> dict[str, Any]:
    """Its shape, all of it as a digest, and 25 of its values."""
    values = tensor.flatten()
    spread = values[torch.linspace(0, len(values) - 1, 25).long()].tolist()
    return {"shape": list(tensor.shape), "digest": digest({"": tensor}), "values": spread}


def assert_same_outputs(tensors: list[torch.Tensor], expected: list[dict[str, Any]]) -> None:
    for tensor, other in zip(tensors, expected, strict=True):
        found = summary(tensor)
        assert found["shape"] == other["shape"]
        assert_same_numbers(found["values"], other["values"], atol=1e-5)
        if IS_EXACT:
            assert found["digest"] == other["digest"]


@pytest.fixture(autouse=True, scope="module")
def torch_implementation() -> Iterator[None]:
    """The native kernel, which not every machine has, rounds in its own way."""
    use_deformable_attention_kernel("torch")
    yield
    use_deformable_attention_kernel("auto")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the version before was used in: its paths are relative to it."""
    for name in ARCHIVES:
        shutil.unpack_archive(VERSION_BEFORE / f"{name}.tar.xz", tmp_path, filter="data")
    shutil.copytree(VERSION_BEFORE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.tar.xz"))
    (tmp_path / "configuration").symlink_to(ROOT / "configuration")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def resolved_recipe(name: str) -> dict[str, Any]:
    """`recipe` in the results.json, and in the state.json, of a run."""
    return json.loads((VERSION_BEFORE / "resolved" / f"{name}.json").read_text())


def write_recipe(folder: Path, name: str, *leave_out: str) -> Path:
    """A recipe of results.json in a file of its own."""
    tree = {key: value for key, value in resolved_recipe(name).items() if key not in leave_out}
    path = folder / "recipes" / f"{name}.json"
    path.write_text(json.dumps(tree, indent=1))
    return path


# The model


def masks_of(described: dict[str, Any]) -> dict[str, np.ndarray]:
    """(H, W) uint8 of each class found."""
    return {found["category"]: coco_mask.decode(found["segmentation"]) for found in described["annotations"]}


@on_cpu
def test_a_model_folder_predicts_the_same(workplace: Path) -> None:
    assert run_script(predict, workplace / "run" / "best_model", "picture.png", "--output", "found") == 0
    found = json.loads((workplace / "found" / "picture.prediction.json").read_text())
    expected = json.loads((workplace / "picture.prediction.json").read_text())
    assert len(expected["annotations"]) > 2
    if IS_EXACT:
        assert found == expected
    assert {key: found[key] for key in ("image", "categories")} == {
        key: expected[key] for key in ("image", "categories")
    }
    masks, others = masks_of(found), masks_of(expected)
    assert sum((masks[name] & others[name]).sum() for name in masks.keys() & others) >= 0.995 * 64 * 64


@on_cpu
def test_a_resolved_recipe_evaluates_the_same(workplace: Path) -> None:
    recipe = write_recipe(workplace, "shapes", "name")
    assert run_script(evaluate, recipe, "--model", "run/best_model", "--output", "numbers.json") == 0
    metrics = json.loads((workplace / "numbers.json").read_text())["metrics"]
    assert_same_numbers(metrics, EXPECTED["evaluation"], atol=A_FEW_PIXELS)


# The checkpoints


def assert_same_end(results: Path, weights: Path, expected: dict[str, Any]) -> None:
    """Losses and learning rates of the two steps that were left, the measures, and the last weights."""
    found = json.loads(results.read_text())
    assert [point["step"] for point in found["curve"]] == list(range(1, found["step"] + 1))
    assert_same_numbers(found["curve"][-2:], expected["curve"], rtol=A_FEW_LEVELS)
    assert_same_numbers(found["evaluations"], expected["evaluations"], atol=A_FEW_PIXELS)
    assert found["finished"]
    if IS_EXACT:
        assert found["best"] == expected["best"]
        assert digest(load_file(weights)) == expected["weights"]


@on_cpu
@pytest.mark.parametrize("form", ["yaml", "resolved"])
def test_a_checkpoint_is_resumed(form: str, workplace: Path) -> None:
    """With the recipe it was started with, or the one in its results."""
    recipe = write_recipe(workplace, "shapes", "name") if form == "resolved" else "recipes/shapes.yaml"
    assert run_script(train, recipe, "resume=auto") == 0
    assert_same_end(Path("run/results.json"), Path("run/last_model/model.safetensors"), EXPECTED["run"])


@on_cpu
def test_a_checkpoint_of_trainer_is_resumed(workplace: Path) -> None:
    flags = ["--save_total_limit", "9", "--disable_tqdm", "true", "--resume_from_checkpoint", "true"]
    assert run_script(finetune_with_trainer, "recipes/shapes.yaml", "output=trainer", *flags) == 0
    last = Path("trainer") / f"checkpoint-{EXPECTED['trainer']['curve'][-1]['step']}"
    assert_same_end(Path("trainer/results.json"), last / "model.safetensors", EXPECTED["trainer"])


# The repositories


def test_a_repository_loads_without_our_package(workplace: Path) -> None:
    hub = Hub()
    hub.add_folders(workplace / "repositories")
    shared = {"do": "load", "trust_remote_code": True}
    steps = [
        shared | {"loader": "AutoModelForSemanticSegmentation", "repository": "org/upernet-tiny"},
        shared | {"loader": "AutoBackbone", "repository": "org/vit-comer-tiny"},
    ]
    with serve(hub) as endpoint:
        head, backbone = Published(hub, workplace, endpoint).client(steps)
    for loaded, name in ((head, "upernet-tiny"), (backbone, "vit-comer-tiny")):
        assert loaded["module"].startswith("transformers_modules.org.")
        assert_same_outputs(loaded["outputs"], EXPECTED["repositories"][name])


@pytest.mark.parametrize("trust", [None, True])
def test_a_repository_loads_with_our_package(
    trust: bool | None, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the package's own code runs."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(workplace / "modules"))
    monkeypatch.syspath_prepend(workplace / "modules")
    folder = workplace / "repositories" / "org"
    head = AutoModelForSemanticSegmentation.from_pretrained(folder / "upernet-tiny", trust_remote_code=trust)
    assert type(head.backbone) is ViTCoMerBackbone
    assert_same_outputs(outputs_of(head), EXPECTED["repositories"]["upernet-tiny"])
    backbone = ViTCoMerBackbone.from_pretrained(folder / "vit-comer-tiny")
    assert_same_outputs(outputs_of(backbone), EXPECTED["repositories"]["vit-comer-tiny"])
    model = AutoModel.from_pretrained(folder / "vit-comer-tiny", trust_remote_code=trust)
    assert type(model).__module__.startswith("modeling_vit_comer.")


# The recipes


def plain(recipe: Recipe) -> dict[str, Any]:
    """All keys but those that name files, with the values as JSON has them."""
    flat = flatten(json.loads(json.dumps(dataclasses.asdict(recipe))))
    return {key: value for key, value in flat.items() if key not in FILES_IN_RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_recipe_means_the_same(name: str, workplace: Path) -> None:
    """As the recipe that it was made from, and as the version before understood it."""
    path = workplace / "recipes" / f"{name}.yaml"
    resolved, before = plain(load_recipe(write_recipe(workplace, name, "name"))), flatten(resolved_recipe(name))
    assert resolved == plain(load_recipe(path))
    # Of drawn pictures it was the default, which said nothing; now they are a format of their own.
    common = (resolved.keys() & before) - ({"data.format"} if before["data.path"] == "synthetic_shapes" else set())
    # What was refused by default is now read as it was annotated, and a checkpoint goes on.
    if before["data.exif_orientation"] == "refuse":
        before["data.exif_orientation"] = "auto"
    assert {key: resolved[key] for key in common} == {key: before[key] for key in common}
    written = flatten(yaml.safe_load(path.read_text())).keys() - set(FILES_IN_RECIPES)
    assert written <= common


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_recipe_keeps_its_name(name: str, tmp_path: Path) -> None:
    """In which folder and under which name the file is saved says nothing then."""
    path = tmp_path / "my_recipe.json"
    path.write_text(json.dumps(resolved_recipe(name)))
    recipe = load_recipe(path)
    assert (recipe.name, recipe.output) == (name, resolved_recipe(name)["output"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_recipe_finds_its_files(name: str, workplace: Path) -> None:
    """It opens the same classes and the same samples, and has the same backbone."""
    recipe = load_recipe(write_recipe(workplace, name, "name"))
    data, expected = load_data(recipe.data, find_task(recipe.task)), EXPECTED["data"][name]
    samples = data.train.shuffled(0) if isinstance(data.train, StreamedSplit) else data.train
    assert (data.labels, sorted(data.things)) == (expected["labels"], expected["things"])
    assert digest(samples[0]) == expected["sample"]
    with torch.device("meta"):
        assert build_backbone(recipe.backbone).config.hidden_size == expected["hidden_size"]
