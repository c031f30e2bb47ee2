"""A head is added by one file: it is trained, measured and saved as the others are. Nothing else knows its name."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_head import HEAD

import finetune_with_trainer
import train
from dense_prediction.models import heads
from dense_prediction.models.options import HeadOptions
from scripts_in_process import run_script


HEADS = Path(heads.__file__).parent


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_registered", {})
    heads.register("toy", HEAD)


@pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
def test_both_trainers_train_it(script: ModuleType, toy: None, recipe_file: Path, tmp_path: Path) -> None:
    head, steps = "head={name: toy, config: {scale: 2.0}}", ["training.steps=2", "training.evaluate_every=2"]
    assert run_script(script, recipe_file, head, f"output={tmp_path / 'run'}", *steps) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["recipe"]["head"] == {"name": "toy", "config": {"scale": 2.0}, "checkpoint": None}
    assert 0 < results["evaluations"][-1]["mean_iou"] < 1
    files = (tmp_path / "run").rglob("model.safetensors")
    saved = [load_file(path)["classifier.weight"] for path in files]
    assert saved and all(weight.any() for weight in saved)


def test_it_is_found_by_its_name_and_by_its_model(toy: None) -> None:
    assert heads.find_head("toy") is HEAD
    assert "toy" in heads.head_names()
    assert heads.head_of(HEAD.config_class()) is HEAD
    with pytest.raises(ValidationError, match="got 'toi', which is no head: did you mean toy"):
        HeadOptions(name="toi")


def test_without_it_there_are_the_heads_of_the_folder() -> None:
    assert heads.head_names() == sorted(path.stem for path in HEADS.glob("[!_]*.py"))
    assert len(heads.head_names()) == 10
    with pytest.raises(ValidationError, match="got 'toy', which is no head: There are conditional_detr, d_fine, "):
        HeadOptions(name="toy")
