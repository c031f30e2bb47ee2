"""`scripts/publish_kernel.py` against a Hub of our own, from which the package then loads the kernel."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from packaging.version import Version

import modeling_vit_comer
import publish_kernel
from dense_prediction.errors import UserError
from hub import TOKEN, Hub, Repository, serve


REPOSITORY = "org/comer-msda"
OPS_ID = "_comer_msda_1234567"
# Runs everywhere and computes nothing: what matters here is that it arrives.
KERNEL = """
DEVICE_TYPES = ("cpu",)
def comer_msda(): ...
def multi_scale_deformable_attention(): ...
"""
LOAD = f"""
from modeling_vit_comer import deformable_attention_backend, use_deformable_attention_kernel
use_deformable_attention_kernel("{REPOSITORY}", trust_remote_code=True)
print(deformable_attention_backend("cpu"))
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    if Version(huggingface_hub.__version__) < Version(publish_kernel.FIRST_HUB):
        pytest.skip(f"huggingface_hub {huggingface_hub.__version__} cannot upload kernels")
    hub = Hub()
    with serve(hub) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        yield hub


def write_variant(build: Path, name: str, kernel: str = KERNEL) -> Path:
    """A built variant, as kernel-builder leaves it."""
    folder = build / name
    folder.mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "layers.pyc").write_bytes(b"")
    (folder / "__init__.py").write_text(kernel)
    (folder / "_ops.py").write_text("# Generated.\n")
    (folder / f"{OPS_ID}.abi3.so").write_bytes(b"machine code")
    metadata = {"id": OPS_ID, "name": "comer-msda", "version": 1, "license": "Apache-2.0", "python-depends": []}
    (folder / "metadata.json").write_text(json.dumps(metadata | {"backend": {"type": "cpu"}}))
    return folder


@pytest.fixture
def build(tmp_path: Path) -> Path:
    write_variant(tmp_path / "build", "torch-universal")
    return tmp_path / "build"


def publish(build: Path, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["publish_kernel.py", REPOSITORY, "--build", str(build), *arguments])
        publish_kernel.main()


def repository_of(hub: Hub) -> Repository:
    return hub.repositories[f"kernels/{REPOSITORY}"]


def test_published_kernel_is_loaded(hub: Hub, tmp_path: Path) -> None:
    """Also by a CUDA build of torch, which does not look for a CPU variant by itself."""
    pytest.importorskip("kernels")
    write_variant(tmp_path / "build", "torch-cpu")
    publish(tmp_path / "build")
    environment = os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": str(Path(modeling_vit_comer.__file__).parents[1]), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", LOAD]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "comer_msda:cpu\n"


def test_layout(hub: Hub, build: Path, capsys: pytest.CaptureFixture) -> None:
    publish(build, "--dry-run")
    assert not hub.requests
    assert f"build/torch-universal/{OPS_ID}.abi3.so" in capsys.readouterr().out
    publish(build)
    variant = {"__init__.py", "_ops.py", "metadata.json", f"{OPS_ID}.abi3.so"}
    front = {".gitattributes", "README.md", "LICENSE"}
    assert repository_of(hub).files().keys() == front
    assert repository_of(hub).files("v1").keys() == front | {f"build/torch-universal/{name}" for name in variant}


def test_an_old_client_is_refused_before_it_makes_anything(
    hub: Hub, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "__version__", "2.2.0")
    with pytest.raises(UserError, match="huggingface_hub 2.2.0 cannot upload kernels, 2.3 can: pip install --upgrade"):
        publish(build)
    assert not hub.requests


def test_other_variants_stay(hub: Hub, build: Path, tmp_path: Path) -> None:
    """Each machine publishes what it can build, in place of its own older build."""
    publish(build)
    other = tmp_path / "other"
    write_variant(other, "torch-cpu")
    with pytest.raises(UserError, match="there already"):
        publish(other)
    publish(other, "--update")
    write_variant(tmp_path / "newer", "torch-cpu").joinpath("_ops.py").rename(tmp_path / "newer/torch-cpu/ops.py")
    (tmp_path / "newer/torch-cpu/_ops.py").write_text("# Newer.\n")
    (tmp_path / "newer/torch-cpu/__init__.py").unlink()
    publish(tmp_path / "newer", "--update")
    files = repository_of(hub).files("v1")
    assert "build/torch-universal/__init__.py" in files and "build/torch-cpu/ops.py" in files
    assert "build/torch-cpu/__init__.py" not in files


def remove_library(variant: Path) -> None:
    (variant / f"{OPS_ID}.abi3.so").unlink()


def outdate(variant: Path) -> None:
    (variant / "_ops.py").write_text("Generated by scripts/build_kernel.py, from sources that are no more\n")


def remove_variant(variant: Path) -> None:
    (variant / "metadata.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_library, "no whole build"),
        (outdate, "built from other sources"),
        (remove_variant, "has no built variant"),
    ],
)
def test_mistakes(hub: Hub, build: Path, spoil, message: str) -> None:
    spoil(build / "torch-universal")
    with pytest.raises(UserError, match=message):
        publish(build)
    assert not hub.repositories
