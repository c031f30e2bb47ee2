"""transformers' own common tests, from the source distribution of the installed version.

The wheel does not have them, and copies of our own would grow old. The archive is downloaded once, with pip, and its
test modules are kept in the user's cache folder.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import transformers


PACKAGE = "transformers_tests"
MODULES = ("test_backbone_common.py", "test_configuration_common.py", "test_modeling_common.py")

# Modules that the common tests import and the archive lacks, with all that is taken from them.
STUBS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}


class SdistUnavailable(Exception):
    """The source distribution of transformers could not be had."""


def cache_folder() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "vit-comer-tests" / f"transformers-{transformers.__version__}"


def download_sdist(folder: Path) -> Path:
    requirement = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-binary", "transformers", "--retries", "1", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    archives = list(folder.glob("transformers-*.tar.gz"))
    if result.returncode or not archives:
        reason = (result.stderr.strip() or "no archive").splitlines()[-1]
        raise SdistUnavailable(f"pip cannot download the source distribution of {requirement}: {reason}")
    return archives[0]


def unpack_tests(archive: Path, folder: Path) -> None:
    """Write the test modules that we need to `folder`, each of them whole or not at all."""
    with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=folder) as scratch:
        for member in tar.getmembers():
            path = Path(member.name)
            if path.parent.name == "tests" and path.name in MODULES:
                whole = Path(scratch, path.name)
                whole.write_bytes(tar.extractfile(member).read())
                whole.replace(folder / path.name)
    missing = missing_modules(folder)
    if missing:
        raise SdistUnavailable(f"{archive.name} has no tests/{missing[0]}")


def missing_modules(folder: Path) -> list[str]:
    return [name for name in MODULES if not (folder / name).exists()]


def tests_folder() -> Path:
    """The folder of the unpacked test modules, from the cache or downloaded.

    On a fresh machine several processes come here at once, and any of them may be stopped. Each puts the same files
    in place, one by one: what is there is whole, and what is missing is fetched.
    """
    cache = cache_folder()
    if missing_modules(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            unpack_tests(download_sdist(Path(scratch)), cache)
    return cache


def make_module(name: str, **members: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def import_common_tests() -> tuple[ModuleType, ...]:
    """The modules named in `MODULES`, imported.

    Raises:
        SdistUnavailable: no network, no pip, or another layout of the archive.
    """
    make_module(PACKAGE, __path__=[str(tests_folder())])
    for name, members in STUBS.items():
        parent = name.partition(".")[0]
        make_module(f"{PACKAGE}.{parent}", __path__=[])
        make_module(f"{PACKAGE}.{name}", **members)
    return tuple(importlib.import_module(f"{PACKAGE}.{Path(name).stem}") for name in MODULES)
