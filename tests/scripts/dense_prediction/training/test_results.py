"""What results.json and evaluate's JSON say of the code, the libraries and the command."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import evaluate
import pytest

import finetune_with_trainer
import train
from dense_prediction import train as train_in_python
from dense_prediction.training.results import checkout
from miniature import ROOT
from modeling_vit_comer import __version__
from modeling_vit_comer.deformable_attention import deformable_attention_backend
from scripts_in_process import run_script


SHORT = ["training.steps=1", "training.evaluate_every=1"]


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
def test_a_run_says_where_its_numbers_come_from(script: ModuleType, recipe_file: Path, tmp_path: Path) -> None:
    arguments = [str(recipe_file), f"output={tmp_path / 'run'}", *SHORT]
    flags = ["--hub_token", "hf_abc"] if script is finetune_with_trainer else []
    assert run_script(script, *arguments, *flags) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["command"] == [f"{script.__name__}.py", *arguments, *(["--hub_token", "..."] if flags else [])]
    assert results["deformable_attention"] == deformable_attention_backend()
    assert results["versions"]["python"] == sys.version.split()[0]
    assert results["project"] == {"version": __version__} | checkout()
    assert results["project"]["commit"] == (git(ROOT, "rev-parse", "HEAD") or None)

    if script is train:
        written, model = tmp_path / "evaluation.json", tmp_path / "run" / "best_model"
        assert run_script(evaluate, recipe_file, "--model", model, "--output", written) == 0
        content = json.loads(written.read_text())
        assert content["command"][:2] == ["evaluate.py", str(recipe_file)]
        for key in ("deformable_attention", "versions", "project"):
            assert content[key] == results[key]


def test_of_python_there_is_no_command(recipe_file: Path, tmp_path: Path) -> None:
    overrides = {"output": str(tmp_path / "run"), "training.steps": 1, "training.evaluate_every": 1}
    assert train_in_python(recipe_file, overrides)["command"] is None


def test_a_checkout_has_a_commit_and_a_package_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder inside of somebody's repository is not a checkout of ours."""
    git(tmp_path, "init")
    (tmp_path / "a.txt").write_text("a")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-m", "a")
    git(tmp_path, "tag", "-a", "v1", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 40 and checkout(tmp_path) == {"commit": commit, "modified": False}
    (tmp_path / "a.txt").write_text("b")
    assert checkout(tmp_path) == {"commit": commit, "modified": True}
    (tmp_path / "site-packages").mkdir()
    nothing = {"commit": None, "modified": None}
    assert checkout(tmp_path / "site-packages") == nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout(tmp_path) == nothing
