"""Who asks for all (VIT_COMER_REQUIRE_ALL) is told of a skip for want of something: it fails."""

import os
import subprocess
import sys
from pathlib import Path

import known_skips


SUITE = """\
import pytest

@pytest.fixture
def compiler():
    pytest.skip("no C++ compiler: c++ or g++ not found")

def test_with_compiler(compiler):
    pass

def test_with_package():
    pytest.importorskip("a_package_that_is_not_there")

def test_on_gpu():
    pytest.skip("needs a CUDA device")

@pytest.mark.xfail(reason="is known not to work")
def test_expected_failure():
    assert False

def test_of_ours():
    pass
"""
MODULE = 'import pytest\n\npytest.skip("transformers\' own tests are not here", allow_module_level=True)\n'


def run_suite(folder: Path, require_all: str) -> str:
    """The last line that pytest prints, without the time."""
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "test_module.py").write_text(MODULE)
    (folder / "pytest.ini").touch()
    environment = os.environ | {
        "VIT_COMER_REQUIRE_ALL": require_all,
        "PYTHONPATH": str(Path(known_skips.__file__).parent),
    }
    options = ["-q", "-p", "known_skips", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return result.stdout.splitlines()[-1].partition(" in ")[0]


def test_by_hand(tmp_path: Path) -> None:
    assert run_suite(tmp_path, "") == "1 passed, 4 skipped, 1 xfailed"


def test_where_all_is_asked_for(tmp_path: Path) -> None:
    assert run_suite(tmp_path, "1") == "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors"
