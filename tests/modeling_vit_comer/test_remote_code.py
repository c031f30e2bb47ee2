"""Models of ours where our package is not installed: pushed to a Hub, loaded from it by other processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from transformers import (
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
    ViTImageProcessor,
    dynamic_module_utils,
)
from transformers.dynamic_module_utils import get_imports

import modeling_vit_comer
import remote_code_client
from dense_prediction.hub.model_repository import OUTDATED, ModelFiles, stage_model
from dense_prediction.hub.upload import Target, upload
from hub import TOKEN, Hub, serve
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.configuration_heads import HEAD_CONFIGS
from remote_code_client import found_by, outputs_of
from test_heads import HEADS
from tiny import tiny_config, wake_up


SEGMENTATION, DETECTION = "image-segmentation", "object-detection"
# The Auto class, the image processor and the pipeline of each head.
PUBLISHED_HEADS = {
    "upernet": ("AutoModelForSemanticSegmentation", "SegformerImageProcessor", SEGMENTATION),
    "mask2former": ("AutoModelForUniversalSegmentation", "Mask2FormerImageProcessor", SEGMENTATION),
    "detr": ("AutoModelForObjectDetection", "DetrImageProcessor", DETECTION),
    "deformable_detr": ("AutoModelForObjectDetection", "DeformableDetrImageProcessor", DETECTION),
    "rt_detr": ("AutoModelForObjectDetection", "RTDetrImageProcessor", DETECTION),
    "d_fine": ("AutoModelForObjectDetection", "RTDetrImageProcessor", DETECTION),
}
LOADERS = {"backbone": "AutoBackbone"} | {name: loader for name, (loader, *_) in PUBLISHED_HEADS.items()}
RESAVED = ["backbone", "upernet", "mask2former", "deformable_detr"]
TRUST = {"trust_remote_code": True}

# What another version of the code does: all maps are twice as large.
OURS, THEIRS = b"return feature_map[..., :height, :width]", b"return 2 * feature_map[..., :height, :width]"


@dataclass
class Published:
    """A Hub with our repositories, and what went into them."""

    hub: Hub
    root: Path
    endpoint: str
    models: dict[str, PreTrainedModel] = field(default_factory=dict)
    first: ViTCoMerBackbone | None = None
    first_commit: str = ""

    def repository(self, name: str) -> str:
        return f"org/{name}"

    def processor(self, name: str) -> Any:
        return transformers.AutoImageProcessor.from_pretrained(self.root / name)

    def push(self, name: str, model: PreTrainedModel, processor: Any) -> str:
        folder, staged = self.root / name, self.root / "staged" / name
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        stage_model(folder, self.repository(name), ModelFiles(), staged)
        upload(staged, Target(repository=self.repository(name), update=True), "Upload", outdated=OUTDATED)
        self.models[name] = model
        return self.hub.repositories[f"models/{self.repository(name)}"].branches["main"]

    def change_code(self, name: str, copy: str) -> None:
        """A repository with the same weights and another version of the code."""
        repository = self.hub.repositories[f"models/{self.repository(name)}"]
        tree = dict(repository.files())
        code = self.hub.blobs[tree["modeling_vit_comer.py"]]
        assert OURS in code
        tree["modeling_vit_comer.py"] = self.hub.store(code.replace(OURS, THEIRS))
        self.hub.repositories[f"models/{self.repository(copy)}"] = type(repository)()
        self.hub.repositories[f"models/{self.repository(copy)}"].commit("main", tree)

    def client(self, steps: list[dict[str, Any]], *hide: str, offline: bool = False) -> list[Any]:
        """What a process returns that cannot import our package, nor `hide`, from another folder."""
        output = self.root / "output.pt"
        hidden = ["modeling_vit_comer", "dense_prediction", "kernels", *hide]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.root / "home"), "NO_PROXY": "*"}
        environment |= {"OMP_NUM_THREADS": "1"} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        result = subprocess.run(
            [sys.executable, remote_code_client.__file__],
            input=json.dumps({"hide": hidden, "steps": steps, "output": str(output)}),
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert "is not supported for" not in result.stderr, result.stderr
        return torch.load(output)


def small_backbone(seed: int = 0) -> ViTCoMerBackbone:
    torch.manual_seed(seed)
    backbone = ViTCoMerBackbone(tiny_config(layer_scale_init_value=0.1)).eval()
    wake_up(backbone)
    return backbone


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    hub = Hub()
    with serve(hub) as endpoint, pytest.MonkeyPatch.context() as patch:
        # huggingface_hub reads its environment once, when it is imported.
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("NO_PROXY", "*")
        published = Published(hub=hub, root=tmp_path_factory.mktemp("published"), endpoint=endpoint)
        fill(published)
        yield published


def fill(published: Published) -> None:
    """A backbone of two versions, every head, and a copy of two of them with other code."""
    published.first = small_backbone(seed=1)
    processor = ViTImageProcessor(do_resize=False, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    published.first_commit = published.push("backbone", published.first, processor)
    published.push("backbone", small_backbone(seed=2), processor)
    for name, (_, processor, _) in PUBLISHED_HEADS.items():
        torch.manual_seed(0)
        size = {"height": 64, "width": 96}
        published.push(name, HEADS[name].build().eval(), getattr(transformers, processor)(size=size))
    for name in ("backbone", "upernet"):
        published.change_code(name, f"changed-{name}")


def steps_of_newcomer(published: Published) -> dict[str, dict[str, Any]]:
    def step(name: str, loader: str, do: str = "load", **arguments: Any) -> dict[str, Any]:
        return {"do": do, "loader": loader, "repository": published.repository(name)} | TRUST | arguments

    steps: dict[str, dict[str, Any]] = {}
    for name, loader in LOADERS.items():
        save = {"save_to": str(published.root / "resaved" / name)} if name in RESAVED else {}
        steps[name] = step(name, loader, **save)
    for name in ("backbone", "upernet"):
        steps[f"changed-{name}"] = step(f"changed-{name}", LOADERS[name])
    steps["pinned"] = step("backbone", "AutoBackbone", revision=published.first_commit)
    steps["model"] = step("backbone", "AutoModel")
    steps["stages"] = step("backbone", "AutoBackbone", out_features=["stage2", "stage4"])
    steps["config"] = step("backbone", "AutoConfig", do="describe")
    steps["processor"] = step("backbone", "AutoImageProcessor", do="describe")
    for name, (_, _, task) in PUBLISHED_HEADS.items():
        steps[f"pipeline of {name}"] = {"do": "run_pipeline", "task": task, "repository": published.repository(name)}
    upernet = {"head": "UperNetForSemanticSegmentation", "num_labels": 3, "hidden_size": 16}
    for name in ("backbone", "changed-backbone"):
        steps[f"head on {name}"] = step(name, "AutoBackbone", do="attach", **upernet)
        del steps[f"head on {name}"]["trust_remote_code"]
    # Last: what registers the model type for everybody, after which each must still run its own code.
    steps["register"] = {"do": "register", "repository": published.repository("backbone")}
    steps["changed-upernet after that"] = steps["changed-upernet"]
    return steps


@pytest.fixture(scope="module")
def newcomer(published: Published) -> dict[str, Any]:
    """What came of each step in one process, in which our package cannot be imported."""
    steps = steps_of_newcomer(published)
    return dict(zip(steps, published.client(list(steps.values())), strict=True))


def assert_same(outputs: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(outputs) == len(expected) > 0
    for output, other in zip(outputs, expected):
        torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOADERS)
def test_outputs_are_the_same(name: str, published: Published, newcomer: dict[str, Any]) -> None:
    assert newcomer[name]["module"].startswith("transformers_modules.org.")
    assert_same(newcomer[name]["outputs"], outputs_of(published.models[name]))


def test_a_version_is_pinned(published: Published, newcomer: dict[str, Any]) -> None:
    assert_same(newcomer["pinned"]["outputs"], outputs_of(published.first))
    assert not torch.equal(newcomer["pinned"]["outputs"][0], newcomer["backbone"]["outputs"][0])


def test_auto_classes_of_a_backbone(published: Published, newcomer: dict[str, Any]) -> None:
    last_hidden_state, *feature_maps = newcomer["model"]["outputs"]
    assert_same(feature_maps[1:], newcomer["backbone"]["outputs"])
    assert_same(newcomer["stages"]["outputs"], [newcomer["backbone"]["outputs"][index] for index in (1, 3)])
    name, fields = newcomer["config"]
    assert name == "ViTCoMerConfig" and fields["depths"] == [1, 0, 1, 0]
    name, fields = newcomer["processor"]
    assert name == "ViTImageProcessor" and list(fields["image_mean"]) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", PUBLISHED_HEADS)
def test_pipelines(name: str, published: Published, newcomer: dict[str, Any]) -> None:
    task = PUBLISHED_HEADS[name][2]
    expected = found_by(task, published.models[name], published.processor(name))
    found = newcomer[f"pipeline of {name}"]
    assert [label for label, _ in found] == [label for label, _ in expected] != []
    if task == DETECTION:
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)


def test_each_repository_runs_its_own_code(
    published: Published, newcomer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions were loaded in one process, ours before and after the other."""
    code = modeling_vit_comer.modeling_vit_comer
    crop = code.crop_to_stride
    monkeypatch.setattr(code, "crop_to_stride", lambda *arguments: 2 * crop(*arguments))
    for name in ("backbone", "upernet"):
        assert_same(newcomer[f"changed-{name}"]["outputs"], outputs_of(published.models[name]))
    assert_same(newcomer["changed-upernet after that"]["outputs"], newcomer["changed-upernet"]["outputs"])


def test_a_head_on_a_backbone_from_the_hub(newcomer: dict[str, Any]) -> None:
    """Round the code that came with the backbone, also where there are two versions of it."""
    for name in ("backbone", "changed-backbone"):
        built = newcomer[f"head on {name}"]
        assert_same(built["outputs"], newcomer[name]["outputs"])
        assert built["module"] == newcomer[name]["module"]
        assert [tuple(scores.shape) for scores in built["scores"]] == [(1, 3, 64, 96)]


@pytest.fixture(scope="module")
def offline(published: Published, newcomer: dict[str, Any]) -> dict[str, Any]:
    """The same without a network: from the cache, and from the folders that the first process saved."""
    steps = {"cache": {"do": "load", "loader": "AutoModel", "repository": published.repository("backbone")}}
    for name in RESAVED:
        loader = LOADERS[name].replace("AutoBackbone", "AutoModel")
        steps[name] = {"do": "load", "loader": loader, "repository": str(published.root / "resaved" / name)}
    loaded = published.client([step | TRUST for step in steps.values()], offline=True)
    return dict(zip(steps, loaded, strict=True))


def test_from_the_cache_offline(newcomer: dict[str, Any], offline: dict[str, Any]) -> None:
    assert_same(offline["cache"]["outputs"], newcomer["model"]["outputs"])


@pytest.mark.parametrize("name", RESAVED)
def test_saved_again_and_loaded_again(name: str, newcomer: dict[str, Any], offline: dict[str, Any]) -> None:
    expected = newcomer["model" if name == "backbone" else name]["outputs"]
    assert_same(offline[name]["outputs"], expected)


def test_without_timm(published: Published, newcomer: dict[str, Any]) -> None:
    step = {"do": "fail", "loader": "AutoModel", "repository": published.repository("backbone")} | TRUST
    (message,) = published.client([step], "timm", offline=True)
    assert "requires the following packages that were not found in your environment: timm" in message


def test_every_head_can_carry_code() -> None:
    assert HEAD_CONFIGS.keys() == {head.config for head in HEADS.values()}


def test_code_needs_little(published: Published) -> None:
    """What a repository's code imports, leaving out what it only tries to."""
    folder = published.root / "staged" / "upernet"
    imports = {name for path in folder.glob("*.py") for name in get_imports(path)}
    needed = imports - sys.stdlib_module_names
    assert needed == {"torch", "timm", "transformers", "safetensors", "huggingface_hub"}


@pytest.mark.parametrize("trust", [None, True])
def test_an_installed_package_comes_first(
    trust: bool | None, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    # Python keeps the package of another cache that a test before this one has used.
    monkeypatch.delitem(sys.modules, "transformers_modules", raising=False)
    folder = published.root / "staged" / "upernet"
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=trust)
    assert type(model.backbone) is ViTCoMerBackbone
