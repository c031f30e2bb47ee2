"""`scripts/convert_official_checkpoint.py`: what it writes and what it refuses."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor

import convert_official_checkpoint
from dense_prediction.errors import UserError
from dense_prediction.hub.model_repository import ModelFiles, stage_model
from modeling_vit_comer import ViTCoMerBackbone
from official import kept_model, official_fill, unit_variance


MODEL = kept_model("vit_seg_default")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a whole segmenter's checkpoint, as mmseg writes it, and the arguments of its backbone."""
    weights = official_fill(MODEL["weights"])
    state_dict = {f"backbone.{key}": value for key, value in weights.items()} | {"decode_head.bias": torch.ones(2)}
    torch.save({"meta": {"epoch": 3}, "state_dict": state_dict}, tmp_path / "segmenter.pth")
    (tmp_path / "kwargs.json").write_text(json.dumps(MODEL["kwargs"]))
    return tmp_path


def arguments(checkpoint: str = "segmenter.pth", **changes: str) -> list[str]:
    options = {
        "checkpoint": checkpoint,
        "flavour": "segmentation",
        "model-kwargs": "kwargs.json",
        "output": "converted",
    }
    return [part for name, value in (options | changes).items() if value for part in (f"--{name}", value)]


def run_script(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, convert_official_checkpoint.__file__, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_converted_folder_loads(files: Path) -> None:
    result = run_script(files, arguments())
    assert result.returncode == 0, result.stderr
    assert "left out, not of the backbone: 1 weights of decode_head" in result.stdout
    backbone = ViTCoMerBackbone.from_pretrained(files / "converted").eval()
    official = official_fill(MODEL["weights"])
    assert torch.equal(backbone.upsample.bias, official["up.bias"])
    with torch.no_grad():
        assert backbone(unit_variance("image", [1, 3, 64, 64])).feature_maps[0].isfinite().all()


@pytest.mark.parametrize(
    ("choice", "mean"), [({}, [0.485, 0.456, 0.406]), ({"normalization": "half"}, [0.5, 0.5, 0.5])]
)
def test_converted_folder_can_be_published(
    files: Path, monkeypatch: pytest.MonkeyPatch, choice: dict[str, str], mean: list[float]
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", ["convert_official_checkpoint.py", *arguments(**choice)])
    convert_official_checkpoint.main()
    stage_model(files / "converted", "org/name", ModelFiles(), files / "staged")
    processor = AutoImageProcessor.from_pretrained(files / "staged")
    assert list(processor.image_mean) == mean and not processor.do_resize
    assert (files / "staged" / "modeling_vit_comer.py").is_file()


def test_mistake_ends_in_one_line(files: Path) -> None:
    result = run_script(files, arguments(flavour="detection"))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: The checkpoint does not fit") and len(result.stderr.splitlines()) == 1


class Unsafe:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def break_pickle(folder: Path) -> None:
    (folder / "segmenter.pth").write_bytes(pickle.dumps({"state_dict": Unsafe()}))


def cut_off(folder: Path) -> None:
    path = folder / "segmenter.pth"
    path.write_bytes(path.read_bytes()[:5000])


def empty(folder: Path) -> None:
    torch.save({"epoch": 1}, folder / "segmenter.pth")


def fill_output(folder: Path) -> None:
    (folder / "converted").mkdir()
    (folder / "converted" / "notes.txt").write_text("mine")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (break_pickle, {}, "could run code"),
        (cut_off, {}, "damaged"),
        (empty, {}, "no state_dict"),
        (fill_output, {}, "is there already"),
        (nothing, {"flavour": "detection"}, "another flavour or size"),
        (nothing, {"model-kwargs": "", "preset": "vit-comer-s-segmentation"}, "another flavour or size"),
        (nothing, {"model-kwargs": "", "preset": "vit-comer-s"}, "of flavour detection"),
        (nothing, {"model-kwargs": "", "preset": "vit-comer-xl"}, "no preset 'vit-comer-xl'; there are vit-comer-b"),
        (nothing, {"model-kwargs": "missing.json"}, "cannot read missing.json"),
        (nothing, {"checkpoint": "nowhere.pth"}, "no file nowhere.pth"),
        (nothing, {"flavour": "co"}, "invalid choice"),
    ],
)
def test_mistakes(files: Path, monkeypatch: pytest.MonkeyPatch, spoil, changes: dict[str, str], message: str) -> None:
    spoil(files)
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", ["convert_official_checkpoint.py", *arguments(**changes)])
    with pytest.raises(UserError, match=message):
        convert_official_checkpoint.main()
    assert not (files / "converted" / "model.safetensors").exists()
