"""The README's Python snippets run, each in a process of its own, as a reader would paste them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from transformers import Dinov2WithRegistersConfig

from hub import serve_hub
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig


ROOT = Path(__file__).parents[1]
SNIPPET = re.compile(r"(?:<!-- (?P<needs>\w+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
SNIPPETS = [(match["needs"], match["code"]) for match in SNIPPET.finditer((ROOT / "README.md").read_text())]
HUB_REPOSITORY = "org/vit-comer-b"


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_snippets_are_found() -> None:
    assert len(SNIPPETS) >= 6
    assert {needs for needs, _ in SNIPPETS} == {None, "hub", "download", "trained"}


@pytest.mark.parametrize("code", [code for needs, code in SNIPPETS if needs is None])
def test_snippet(code: str) -> None:
    printed = run(code, HF_HUB_OFFLINE="1")
    promised = "".join(re.findall(r"^# (.+\n)", code, re.MULTILINE))
    assert printed == promised


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    config = ViTCoMerConfig.from_pretrained(ROOT / "configuration" / "backbones" / "vit-comer-demo.json")
    ViTCoMerBackbone(config).save_pretrained(tmp_path / HUB_REPOSITORY)
    with serve_hub(tmp_path) as endpoint:
        yield endpoint


def test_hub_snippet(hub: str, tmp_path: Path) -> None:
    (code,) = (code for needs, code in SNIPPETS if needs == "hub")
    code += "print(type(backbone).__name__)"
    assert run(code, HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "home"), NO_PROXY="*") == "ViTCoMerBackbone\n"


def test_download_snippet(tmp_path: Path) -> None:
    """The same lines with random weights, for which only a config is downloaded."""
    (code,) = (code for needs, code in SNIPPETS if needs == "download")
    code, changed = re.subn(r"(from_trunk\(.+)\)", r"\1, pretrained=False)", code)
    assert changed == 2
    Dinov2WithRegistersConfig(num_hidden_layers=2).save_pretrained(tmp_path / "facebook/dinov2-with-registers-base")
    with serve_hub(tmp_path) as endpoint:
        run(code, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"), NO_PROXY="*")


def test_training_snippet(tmp_path: Path) -> None:
    """The same lines with two steps in place of all, in another folder."""
    (code,) = (code for needs, code in SNIPPETS if needs == "trained")
    assert '"training.steps": 800' in code
    shorter = (
        '"training.steps": 2, "optimization.warmup_steps": 0, "training.evaluate_every": 2, "training.log_every": 2'
    )
    shorter += ', "training.checkpoint_every": 2, "data.max_validation_samples": 2'
    code = code.replace('"training.steps": 800', shorter)
    Image.new("RGB", (70, 50)).save(tmp_path / "photo.jpg")
    code = f"import os; os.chdir({str(tmp_path)!r})\n{code}"
    code += "print(results['step'], measured['split'], prediction['semantic_map'].shape)"
    assert run(code, HF_HUB_OFFLINE="1").splitlines()[-1] == "2 test torch.Size([50, 70])"
