"""What `pip install` brings: both packages, the presets and the recipes."""

import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import modeling_vit_comer
from try_wheel import copy_source


ROOT = Path(__file__).parents[1]
PACKAGES = {"modeling_vit_comer": "modeling_vit_comer", "dense_prediction": "scripts/dense_prediction"}
COMMANDS = "vit_comer_commands"
DATA = {
    "modeling_vit_comer/configuration": [*ROOT.glob("configuration/**/*.*")],
    "dense_prediction/evaluation/metrics/library": [*ROOT.glob("scripts/metrics/*/*.py")],
    "dense_prediction/hub/cards/files": [*ROOT.glob("hub_cards/templates/*"), ROOT / "hub_cards" / "trunks.yaml"],
}
"""Where files that are no part of a package stand in the wheel, and which they are."""


def installed_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def run(code: str, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, because a build leaves folders behind."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_source(source)
    run(f"from setuptools.build_meta import build_wheel; build_wheel({str(output)!r})", source)
    (path,) = output.glob("*.whl")
    return zipfile.ZipFile(path)


def read_setup() -> ConfigParser:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def setup_folders() -> dict[str, str]:
    """The folder of each package that does not stand where its name says."""
    lines = read_setup()["options"]["package_dir"].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


def test_every_folder_is_listed() -> None:
    setup = read_setup()
    listed = set(setup["options"]["packages"].split())
    folders = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    data = {folder.replace("/", ".") for folder in DATA}
    assert listed == folders | data | {COMMANDS}, "list new folders in setup.cfg"


def test_the_configuration_is_data() -> None:
    """With Python in it, it would be a second package of a name as common as `configuration`."""
    assert not list((ROOT / "configuration").rglob("*.py"))


def test_the_wheel_has_every_file(wheel: zipfile.ZipFile) -> None:
    roots = {name: ROOT / setup_folders()[name.replace("/", ".")] for name in DATA}
    expected = {f"{name}/{path.relative_to(roots[name])}" for name, paths in DATA.items() for path in paths}
    expected |= {f"{COMMANDS}/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    for package, folder in PACKAGES.items():
        expected |= {f"{package}/{path}" for path in installed_files(ROOT / folder)}
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {f"{package}/py.typed" for package in PACKAGES} < names


def test_from_the_wheel_in_another_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(site)
    folder.mkdir()
    code = (
        "import modeling_vit_comer, dense_prediction\n"
        "from importlib.metadata import version\n"
        "from modeling_vit_comer.presets import configuration_folder, preset_names\n"
        "config = modeling_vit_comer.ViTCoMerConfig.from_preset('vit-comer-t')\n"
        "print(config.hidden_size, len(preset_names()), configuration_folder(), dense_prediction.__path__[0])\n"
        "print(version('vit-comer'), modeling_vit_comer.__version__)"
    )
    printed = run(code, folder, PYTHONPATH=str(site)).split()
    presets = len(list((ROOT / "configuration" / "backbones").glob("*.json")))
    assert printed[:4] == [
        "192",
        str(presets),
        str(site / "modeling_vit_comer/configuration"),
        str(site / "dense_prediction"),
    ]
    assert printed[4:] == [modeling_vit_comer.__version__] * 2
