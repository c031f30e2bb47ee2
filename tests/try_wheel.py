"""Build the wheel, install it outside of this checkout and use it in an empty folder: `make test-wheel`.

    python tests/try_wheel.py [--quick]

By default into an empty environment, with the packages of its `train` extra; `--quick` takes those that are here,
which is what the tests do.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("modeling_vit_comer", "configuration", "scripts", "hub_cards")


def copy_source(folder: Path) -> None:
    """All that a wheel is made from. In the checkout a build would leave folders behind, and take in older ones."""
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def pip(python: str | Path, *arguments: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True)


def build_wheel(folder: Path, *options: str) -> Path:
    source = folder / "source"
    source.mkdir()
    copy_source(source)
    pip(sys.executable, "wheel", "--no-deps", *options, "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> tuple[Path, Path, Path]:
    """In an environment of its own: its Python, the folder of its packages and the command."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    print("Installing the packages (several GB where PyTorch comes with CUDA; a few minutes)", flush=True)
    pip(programs / "python", "install", f"{wheel}[train]")
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    return programs / "python", site, programs / "vit-comer"


def install_quickly(wheel: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Into a folder that comes before all others of this environment."""
    site = folder / "site"
    pip(sys.executable, "install", "--no-deps", "--target", site, wheel)
    return Path(sys.executable), site, site / "bin" / "vit-comer"


def use(python: Path, site: Path, command: Path, folder: Path) -> None:
    """Without a network, and without a way back to the checkout."""
    empty = folder / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    script = shutil.copy(ROOT / "tests" / "check_wheel.py", folder)
    subprocess.run([python, "-P", script, site, command], cwd=empty, env=environment, check=True)


def main() -> None:
    quick = sys.argv[1:] == ["--quick"]
    os.environ.pop("PYTHONPATH", None)  # where it names the checkout, pip takes the package for installed
    with tempfile.TemporaryDirectory(prefix="vit-comer-wheel-") as temporary:
        folder = Path(temporary).resolve()
        wheel = build_wheel(folder, *(["--no-build-isolation"] if quick else []))
        use(*(install_quickly if quick else install)(wheel, folder), folder)


if __name__ == "__main__":
    main()
