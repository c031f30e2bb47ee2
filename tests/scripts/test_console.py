"""`vit-comer`: its words are the scripts, and what is mistyped or missing is one line."""

import subprocess
import sys
from importlib import import_module

import pytest

import console
from miniature import ROOT
from scripts_in_process import last_error, run_script


@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(console, name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: vit-comer {name}")
    script, _ = console.COMMANDS[name]
    assert import_module(script).__doc__.count("vit-comer") <= 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_they_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(console, *arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"vit-comer {name} " in shown for name in console.COMMANDS)


def test_a_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(console, "trian") == 1
    assert last_error(capsys) == f"there is no command 'trian'; there are {', '.join(console.COMMANDS)}"


def test_a_package_that_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delitem(sys.modules, "predict", raising=False)
    assert run_script(console, "predict") == 1
    assert last_error(capsys) == "tqdm is not installed: pip install 'vit-comer[train]' brings all it needs"


MISTYPED = """
import sys
sys.argv = ["vit-comer", "train", *sys.argv[1:], "training.stps=3"]
import console
try:
    console.start()
finally:
    heavy = {"torch", "torchvision", "transformers", "datasets", "timm", "accelerate"} & sys.modules.keys()
    print(sorted(heavy))
"""
DEMO = "semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo"


@pytest.mark.parametrize("asked", [[DEMO], ["object_detection", "--data", "."], [DEMO, "--data", "."]], ids=" ".join)
def test_a_typo_is_answered_before_anything_heavy_is_imported(asked: list[str]) -> None:
    """Which alone takes seconds."""
    command = [sys.executable, "-c", MISTYPED, *asked]
    ended = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: unknown key 'training.stps'; did you mean training.steps")
    assert ended.stdout == "[]\n"
