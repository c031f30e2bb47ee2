"""What a run ends in that cannot go on: one line with advice, and exit code 1."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError

import train
from dense_prediction.data.formats.synthetic_shapes import ShapesSplit
from dense_prediction.failures import explained, is_out_of_disk, is_out_of_memory
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training import checkpoints
from dense_prediction.training.loop import TrainingRun
from dense_prediction.training.run_folder import LAST_MODEL, claim
from dense_prediction.training.run_state import RunState
from miniature import ROOT
from scripts_in_process import last_error, run_script


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    output = tmp_path_factory.mktemp("finished")
    assert run_script(train, recipe_file, f"output={output}", "training.steps=2") == 0
    return output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"holds a run \(step_00000002\): continue it with resume=auto"),
        (["resume=auto", "seed=1"], r"another recipe: seed=1 \(was 0\)"),
        (["resume=./absent"], "resume=./absent is no checkpoint"),
        (["overwrite=true", "head.config.hiden_size=8"], "UperNetConfig has no such field; did you mean hidden_size"),
        (["overwrite=true", "head.config.hidden_size=big"], "head.config: .*hidden_size"),
        (
            ["overwrite=true", "backbone.config=absent.json"],
            "backbone.config: cannot read .*absent.json: No such file",
        ),
        (["overwrite=true", "backbone.overrides.depths=[1, 2]"], "backbone's config is wrong: .*depths"),
        (["overwrite=true", "backbone.trunk_weights=absent.st"], "trunk_weights: cannot read .*absent.st"),
        (["overwrite=true", "backbone.checkpoint=absent"], "set one of backbone.config .* and backbone.checkpoint"),
        (["overwrite=true", "task=object_detection"], "head.name=upernet cannot be trained for task=object_detection"),
        (["overwrite=true", "training.trackers=[tensorbord]"], "there is no 'tensorbord'; there are .*tensorboard"),
        (["overwrite=true", "training.trackers=[swanlab]"], "swanlab is not installed; pip install swanlab"),
        (["--bad"], "unrecognized arguments: --bad"),
    ],
)
def test_a_mistake_ends_in_one_line(
    finished: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    before = (finished / "results.json").read_bytes()
    assert run_script(train, recipe_file, f"output={finished}", "training.steps=2", *overrides) == 1
    assert re.search(message, last_error(capsys))
    assert (finished / "results.json").read_bytes() == before
    assert (finished / "best_model" / "config.json").is_file(), "a run that never started must not delete another"


def test_overwriting_leaves_nothing_of_the_run_before(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "step_00000009.png").touch()
    (tmp_path / "mine.txt").touch()
    claim(tmp_path, ["logs", "predictions"])
    assert run_script(train, recipe_file, f"output={tmp_path}", "training.steps=1", "overwrite=true") == 0
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["step_00000001.png"]
    assert not (tmp_path / "logs").exists()
    assert (tmp_path / "mine.txt").exists()


def test_a_loss_that_is_no_number(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explosive = ["optimization.learning_rate=1e30", "optimization.max_grad_norm=null", "training.checkpoint_every=1"]
    assert run_script(train, recipe_file, f"output={tmp_path}", *explosive) == 1
    message = r"the loss is \w+ at step 2 \(.*step_00000001 is kept.*\): lower optimization.learning_rate"
    assert re.search(message, last_error(capsys))


def raise_at(step: int, error: Exception, function: Any) -> Any:
    def fail(run: TrainingRun, *arguments: Any) -> Any:
        if run.state.step == step:
            raise error
        return function(run, *arguments)

    return fail


ERRORS = {
    "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("memory", r"^out of memory at step 3 \(.*step_00000002 is kept, .*\); halve training.batch_size and double"),
        ("disk", r"^no space left on the disk of output at step 3 \(.*step_00000002 is kept, .*\); make room for it$"),
    ],
)
def test_too_little_of_everything(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: str,
    message: str,
) -> None:
    monkeypatch.setattr(TrainingRun, "_accumulate", raise_at(3, ERRORS[error], TrainingRun._accumulate))
    assert run_script(train, recipe_file, f"output={tmp_path}") == 1
    assert re.search(message, last_error(capsys))


def test_too_little_disk_for_the_last_model(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = TrainingRun._save_model

    def fail(run: TrainingRun, name: str) -> None:
        if name == LAST_MODEL:
            raise ERRORS["disk"]
        save(run, name)

    monkeypatch.setattr(TrainingRun, "_save_model", fail)
    assert run_script(train, recipe_file, f"output={tmp_path}", "training.steps=2") == 1
    message = r"^no space left on the disk of output at step 2 \(.*step_00000002 is kept, .*\); make room for it$"
    assert re.search(message, last_error(capsys))


def test_the_words_of_every_library() -> None:
    memory = [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ]
    disk = [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    ]
    assert [(is_out_of_memory(error), is_out_of_disk(error)) for error in memory] == [(True, False)] * len(memory)
    assert [(is_out_of_memory(error), is_out_of_disk(error)) for error in disk] == [(False, True)] * len(disk)
    for other in (RuntimeError("shapes do not match"), OSError(errno.ENOENT, "No such file")):
        with pytest.raises(type(other)), explained(str):
            raise other


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of a file")
def test_a_file_that_cannot_be_written(recipe_file: Path, tmp_path: Path) -> None:
    """The real command, which may write no file as large as the weights; its report is smaller."""
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); "
    code = f"{limit}sys.argv[0] = {str(ROOT / 'scripts/train.py')!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, recipe_file, f"output={tmp_path}", "training.steps=1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 1
    assert "error: no space left on the disk of output at step 1 (there is no checkpoint yet)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("checkpoints/step_*"))


def test_a_validation_split_without_anything_to_find(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = ShapesSplit.__getitem__

    def without_labels(split: ShapesSplit, index: int) -> dict[str, Any]:
        sample = read(split, index)
        return sample | {"semantic_map": np.full_like(sample["semantic_map"], 255)} if split.seed == 1 else sample

    monkeypatch.setattr(ShapesSplit, "__getitem__", without_labels)
    assert run_script(train, recipe_file, f"output={tmp_path}", "training.evaluate_every=2") == 1
    message = "mean_iou cannot be measured: no sample of data.validation_split=validation has anything .*step_00000002"
    assert re.search(message, last_error(capsys))


def test_an_explicit_checkpoint_replaces_newer_ones(recipe_file: Path, tmp_path: Path) -> None:
    """Those of a future that is given up, of which none must be found later."""
    for step in (2, 5):
        (tmp_path / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step_{step:08d}" / "state.json").write_text("{}")
    recipe = load_recipe(recipe_file, [f"output={tmp_path}"])
    checkpoints.save_checkpoint(Accelerator(), recipe, RunState(4, step=3))
    assert checkpoints.last_checkpoint(tmp_path).name == "step_00000003"


def test_the_command_line_reports_a_mistake_in_one_line_and_exits_1(recipe_file: Path) -> None:
    """The real command, in its own process."""
    command = [sys.executable, ROOT / "scripts" / "train.py", recipe_file, "training.stpes=3"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "unknown key 'training.stpes'; did you mean training.steps" in ended.stderr
