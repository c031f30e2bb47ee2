"""The constraints of `make test-lowest`."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lowest_versions import SETUP, lowest_versions


SETUP_CFG = """\
[options]
install_requires =
    torch>=2.11

[options.extras_require]
kernels =
    kernels>=0.17.2
train =
    %(kernels)s
    {requirement}
"""


def test_of_this_project() -> None:
    """Each requirement once, those of the extras as well, and nothing but versions."""
    lowest = [Requirement(line) for line in lowest_versions(SETUP)]
    names = [requirement.name for requirement in lowest]
    assert len(names) == len(set(names))
    assert {"torch", "timm", "kernels", "pydantic", "pytest", "ruff"} <= set(names)
    assert all(len(requirement.specifier) == 1 for requirement in lowest)


def test_bounds_become_versions(tmp_path: Path) -> None:
    path = tmp_path / "setup.cfg"
    path.write_text(SETUP_CFG.format(requirement="pyyaml>=6.0.3"))
    assert lowest_versions(path) == ["torch==2.11", "kernels==0.17.2", "pyyaml==6.0.3"]


@pytest.mark.parametrize("requirement", ["pyyaml", "pyyaml==6.0", "pyyaml>=6,<7", "pyyaml>=6;python_version<'3.13'"])
def test_other_requirements(requirement: str, tmp_path: Path) -> None:
    """What has no lower bound, or more than that, is not silently left out."""
    path = tmp_path / "setup.cfg"
    path.write_text(SETUP_CFG.format(requirement=requirement))
    with pytest.raises(ValueError, match="must be name>=version"):
        lowest_versions(path)
