"""`scripts/build_backbone.py`: from a name on the Hub to a folder that needs that name no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import AutoImageProcessor, ViTConfig, ViTImageProcessor, ViTModel

import build_backbone
from dense_prediction.errors import UserError
from hub import serve_hub
from modeling_vit_comer import ViTCoMerBackbone


TIMM = "timm/vit_tiny_patch16_224.augreg_in21k"
TRANSFORMERS = "org/vit"
TINY = ["conv_stem_channels=8", "num_extra_cti=0", "deform_num_heads=2", "depths=[1, 1]"]
TINY_VIT = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client whose Hub has a ViT of timm and one of transformers, full of 0.25."""
    root = tmp_path_factory.mktemp("hub")
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=21843)
    config = ViTConfig(image_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    other = ViTModel(config)
    for model in (vit, other):
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 0.25)
    save_for_hf(vit, root / TIMM, safe_serialization=True)
    other.save_pretrained(root / TRANSFORMERS)
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(root / TRANSFORMERS)
    with serve_hub(root) as endpoint:
        yield {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": "*"}


def run_script(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, build_backbone.__file__, *arguments]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {"HF_HUB_OFFLINE": "1"})
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def statistics_of(folder: Path) -> tuple[list[float], list[float]]:
    processor = AutoImageProcessor.from_pretrained(folder)
    return list(processor.image_mean), list(processor.image_std)


def test_from_timm(hub: dict[str, str], tmp_path: Path) -> None:
    result = run_script(tmp_path, "--trunk", TIMM, "--output", "built", "drop_path_rate=0.2", environment=hub)
    assert result.returncode == 0, result.stderr
    backbone = ViTCoMerBackbone.from_pretrained(tmp_path / "built")
    assert all(parameter.eq(0.25).all() for parameter in backbone.trunk.parameters())
    assert backbone.config.drop_path_rate == 0.2 and not backbone.config.freeze_trunk
    assert backbone.config.trunk_config.architecture == TIMM.removeprefix("timm/")
    assert statistics_of(tmp_path / "built") == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])  # AugReg's


def test_from_transformers(hub: dict[str, str], tmp_path: Path) -> None:
    result = run_script(
        tmp_path, "--trunk", TRANSFORMERS, "--output", "built", "--freeze-trunk", *TINY, environment=hub
    )
    assert result.returncode == 0, result.stderr
    backbone = ViTCoMerBackbone.from_pretrained(tmp_path / "built")
    assert all(parameter.eq(0.25).all() and not parameter.requires_grad for parameter in backbone.trunk.parameters())
    assert backbone.config.freeze_trunk and backbone.config.depths == [1, 1]
    assert statistics_of(tmp_path / "built") == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_from_a_file(tmp_path: Path) -> None:
    save_file(timm.create_model("vit_tiny_patch16_224", **TINY_VIT).state_dict(), tmp_path / "vit.safetensors")
    trunk_config = "trunk_config={architecture: vit_tiny_patch16_224, model_args: {img_size: 64, embed_dim: 32, "
    trunk_config += "depth: 2, num_heads: 2}}"
    result = run_script(tmp_path, "--trunk", "vit.safetensors", "--output", "built", trunk_config, *TINY)
    assert result.returncode == 0, result.stderr
    assert "how the trunk's images were normalised is not known" in result.stdout
    assert not (tmp_path / "built" / "preprocessor_config.json").exists()
    assert ViTCoMerBackbone.from_pretrained(tmp_path / "built").config.hidden_size == 32


MISTAKES = {
    "unknown": (["--trunk", "timm/vit_tiny_patch61_224"], "did you mean vit_tiny_patch16_224"),
    "CNN": (["--trunk", "timm/resnet18.a1_in1k"], "is a ResNet, not a plain ViT"),
    "offline": (
        ["--trunk", "timm/vit_tiny_patch16_384"],
        "weights of timm's vit_tiny_patch16_384 are not in the cache",
    ),
    "field": (["--trunk", TIMM, "drop_path=0.1"], "has no field 'drop_path': did you mean drop_path_rate?"),
    "type": (["--trunk", TIMM, "drop_path_rate=high"], "'drop_path_rate' expected float, got str"),
    "no value": (["--trunk", TIMM, "drop_path_rate"], "expected field=value, got 'drop_path_rate'"),
    "no YAML": (["--trunk", TIMM, "depths=[1, 2"], "depths: cannot read the value '[1, 2'"),
    "output": (["--trunk", TIMM, "--output", "."], ". is there already: give a new or an empty folder."),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["build_backbone.py", "--output", "built", *arguments])
    with pytest.raises(UserError) as error:
        build_backbone.main()
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "built").exists()


def test_a_mistake_ends_the_process(tmp_path: Path) -> None:
    result = run_script(tmp_path, "--output", "built", "--trunk", "timm/resnet18")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
