"""The workflows: every job is a target of the Makefile, may only read, ends in time, and runs code that is pinned."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml


ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JOBS = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_jobs() -> None:
    """What has to pass: a job that gets lost is missed by nobody else."""
    assert sorted(commands(job)[0] for job in JOBS) == [
        "make style-check",
        "make test",
        "make test-lowest",
        "make test-wheel",
        "make types",
    ]


@pytest.mark.parametrize("job", JOBS)
def test_job_is_one_target(job: dict[str, Any]) -> None:
    (command,) = commands(job)
    assert command.removeprefix("make ") in TARGETS
    assert 0 < job["timeout-minutes"] <= 120


@pytest.mark.parametrize("path", WORKFLOWS)
def test_rights_and_pins(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert workflow["concurrency"]["cancel-in-progress"] is True
    uses = re.findall(r"uses: *(.*)", text)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_every_target_is_explained() -> None:
    """`make help`, which is also what a bare `make` says."""
    explained = re.findall(r'@echo "make ([a-z-]+) ', (ROOT / "Makefile").read_text())
    assert sorted(explained) == sorted(set(TARGETS) - {"help"})
