"""Presets by name."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramidConfig
from modeling_vit_comer import ViTCoMerConfig, presets
from modeling_vit_comer.presets import preset_names, preset_path


ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configuration" / "backbones").glob("*.json"), key=lambda path: path.stem)


def test_all_are_found() -> None:
    assert len(FILES) >= 12
    assert preset_names() == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equal_to_the_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ViTCoMerConfig.from_preset(path.stem).to_dict() == ViTCoMerConfig.from_pretrained(path).to_dict()
    assert preset_path(path.stem).samefile(path)


def test_in_a_process_of_another_folder(tmp_path: Path) -> None:
    """A checkout that is on the path without being installed."""
    code = (
        "from modeling_vit_comer import ViTCoMerConfig; print(ViTCoMerConfig.from_preset('vit-comer-t').hidden_size)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.stdout == "192\n", result.stderr


def test_changes() -> None:
    config = ViTCoMerConfig.from_preset("vit-comer-t", freeze_trunk=True, out_features=["stage3", "stage4"])
    assert config.freeze_trunk and config.out_features == ["stage3", "stage4"] and config.out_indices == [3, 4]
    assert config.window_sizes == ViTCoMerConfig.from_preset("vit-comer-t").window_sizes
    with pytest.raises(ValueError, match="did you mean freeze_trunk"):
        ViTCoMerConfig.from_preset("vit-comer-t", freeze_trunks=True)


def test_of_a_class_that_derives_from_it() -> None:
    config = SimpleFeaturePyramidConfig.from_preset("vit-comer-s")
    assert type(config) is SimpleFeaturePyramidConfig and config.model_type == "simple_feature_pyramid"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit-comer-x", "there is no preset 'vit-comer-x'; did you mean .*vit-comer-s"),
        ("vit-comer-t.json", "did you mean vit-comer-t"),
        ("../labels/ade20k", "there are vit-comer-b, "),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTCoMerConfig.from_preset(name)


@pytest.mark.parametrize("origin", [None, "modeling_vit_comer.py"])
def test_without_the_package(origin: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of that name, or the file of that name in the folder of a saved model."""
    spec = None if origin is None else ModuleSpec("modeling_vit_comer", None, origin=str(tmp_path / "saved" / origin))
    monkeypatch.setattr(presets, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match="`pip install vit-comer`"):
        ViTCoMerConfig.from_preset("vit-comer-t")
