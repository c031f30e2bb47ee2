"""A run that is stopped at any moment and resumed ends as one that never stopped."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train
from dense_prediction import atomic_files as replacing
from dense_prediction.errors import UserError
from dense_prediction.experiment import Experiment
from dense_prediction.models import saved_models
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training import checkpoints
from dense_prediction.training import loop as trainer
from dense_prediction.training.loop import TrainingRun
from dense_prediction.training.resuming import resumed_state
from dense_prediction.training.run_folder import claim
from miniature import ROOT
from scripts_in_process import last_error, run_script


RUN = (
    "training.evaluate_every=3",
    "training.gradient_accumulation=2",
    "optimization.ema_decay=0.9",
)
LAST = "checkpoints/step_00000006"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """The output folder of an unbroken run."""
    output = tmp_path_factory.mktemp("unbroken")
    assert run_script(train, recipe_file, f"output={output}", *RUN) == 0
    return output


def assert_same_end(actual: Path, expected: Path) -> None:
    """Weights, average, optimizer, models, numbers and file names."""
    assert sorted(files(actual)) == sorted(files(expected))
    for name in files(expected):
        if name.endswith(".safetensors"):
            assert_equal(load_file(actual / name), load_file(expected / name))
    optimizers = [torch.load(path / LAST / "optimizer.bin", weights_only=True) for path in (actual, expected)]
    assert len(optimizers[1]["state"]) > 100
    for index, state in optimizers[1]["state"].items():
        assert_equal(optimizers[0]["state"][index], state)
    results = [json.loads((path / "results.json").read_text()) for path in (actual, expected)]
    for key in ("curve", "evaluations", "best", "step", "finished"):
        assert results[0][key] == results[1][key], key


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def files(folder: Path) -> list[str]:
    """Without Accelerate's random states, which are not used."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("random_states"))
    return [path.relative_to(folder).as_posix() for path in paths]


@pytest.mark.parametrize(
    ("kills", "seconds", "changes"), [(4, 0, 15), pytest.param(20, 1, 15, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(
    kills: int, seconds: int, changes: int, finished: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """With SIGKILL, right before it writes, renames or deletes something, or at any time; files of others stay."""
    claim(tmp_path, ["checkpoints"])
    foreign = [tmp_path / name for name in ("mine.txt", "logs/mine.txt", "checkpoints/mine.txt")]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    script = [sys.executable, ROOT / "tests/scripts/killing.py"]
    command = [*script, str(kills), "5", str(seconds), str(changes), recipe_file, f"output={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(
        [*command, *RUN, "resume=auto"], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.stdout.splitlines()[-1] == f"{kills} kills, exit code 0", ended.stderr
    for path in foreign:
        assert path.read_text() == "mine"
        path.unlink()
    assert_same_end(tmp_path, finished)


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


def die_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """The process ends at the so-manieth call of a function."""
    function, calls = getattr(owner, name), iter(range(call - 1))

    def die(*arguments: Any, **keywords: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return function(*arguments, **keywords)

    monkeypatch.setattr(owner, name, die)


MOMENTS = {
    "between two passes of a step": (TrainingRun, "_accumulate", 6),
    "in a checkpoint, after the weights": (checkpoints, "save_model", 2),
    "before a checkpoint gets its name": (checkpoints, "replace_folder", 3),
    "in the evaluation": (Experiment, "measure", 2),
    "before the evaluation is recorded": (trainer, "write_state", 1),
    "in the best model": (saved_models, "replace_folder", 1),
    "between the two names of the best model": (replacing.Path, "rename", 4),
    "before the last model": (TrainingRun, "_finish", 1),
    "before the last numbers": (trainer, "write_results", 3),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_every_kind_of_moment(
    finished: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    die_at(monkeypatch, *MOMENTS[moment])
    with pytest.raises(Killed):
        TrainingRun(load_recipe(recipe_file, [f"output={tmp_path}", *RUN])).train()
    monkeypatch.undo()
    for states in tmp_path.glob("checkpoints/*/random_states*"):
        states.unlink()  # of Accelerate: our random numbers follow from the step alone
    assert run_script(train, recipe_file, f"output={tmp_path}", *RUN, "resume=auto") == 0
    assert_same_end(tmp_path, finished)


def kill_in_evaluation(monkeypatch: pytest.MonkeyPatch, recipe_file: Path, *overrides: str) -> None:
    """At the first one, whose checkpoint is written and whose numbers are not."""
    die_at(monkeypatch, Experiment, "measure", 1)
    with pytest.raises(Killed):
        TrainingRun(load_recipe(recipe_file, [*overrides, *RUN])).train()
    monkeypatch.undo()


def test_a_run_goes_on_in_another_folder(
    finished: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it has a checkpoint of its own at once, which its first evaluation is recorded in."""
    before, after = tmp_path / "before", tmp_path / "new" / "after"
    kill_in_evaluation(monkeypatch, recipe_file, f"output={before}")
    checkpoint = before / "checkpoints" / "step_00000003"
    state = (checkpoint / "state.json").read_bytes()
    die_at(monkeypatch, TrainingRun, "_step", 1)
    with pytest.raises(Killed):
        TrainingRun(load_recipe(recipe_file, [f"output={after}", *RUN, f"resume={checkpoint}"])).train()
    monkeypatch.undo()
    own = checkpoints.last_checkpoint(after)
    assert own is not None and own.name == checkpoint.name
    assert len(json.loads((own / "state.json").read_text())["state"]["evaluations"]) == 1
    assert run_script(train, recipe_file, f"output={after}", *RUN, "resume=auto") == 0
    assert_same_end(after, finished)
    assert (checkpoint / "state.json").read_bytes() == state


def test_the_best_model_so_far_goes_along(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no part of the checkpoint, and a later model may not be better."""
    before, after = tmp_path / "before", tmp_path / "after"
    die_at(monkeypatch, Experiment, "measure", 2)
    with pytest.raises(Killed):
        TrainingRun(load_recipe(recipe_file, [f"output={before}", *RUN])).train()
    monkeypatch.undo()
    kill_in_evaluation(monkeypatch, recipe_file, f"output={after}", f"resume={before / LAST}")
    best = [folder / "best_model" / "model.safetensors" for folder in (after, before)]
    assert_equal(*map(load_file, best))
    assert (after / "predictions.png").read_bytes() == (before / "predictions.png").read_bytes()


def test_two_runs_are_never_mixed(
    finished: Path,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder that a run is to go on in holds a longer one."""
    before, other = tmp_path / "before", tmp_path / "other"
    kill_in_evaluation(monkeypatch, recipe_file, f"output={before}")
    assert run_script(train, recipe_file, f"output={other}", "training.steps=7", "seed=7") == 0
    kept = {name: (other / name).read_bytes() for name in files(other)}
    resumed = [recipe_file, f"output={other}", *RUN, f"resume={before}/checkpoints/step_00000003"]
    assert run_script(train, *resumed) == 1
    message = r"holds a run \(step_00000007\), and resume=.*step_00000003 is not in it: continue .*overwrite=true"
    assert re.search(message, last_error(capsys))
    assert {name: (other / name).read_bytes() for name in files(other)} == kept

    assert run_script(train, *resumed, "seed=1", "overwrite=true") == 1
    assert {name: (other / name).read_bytes() for name in files(other)} == kept, "a run that never started"
    assert run_script(train, *resumed, "overwrite=true") == 0
    assert_same_end(other, finished)


def test_an_evaluation_is_recorded_in_the_checkpoint_that_was_resumed(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the last one there, if an older one is named."""
    kill_in_evaluation(monkeypatch, recipe_file, f"output={tmp_path}")
    named, last = (tmp_path / "checkpoints" / f"step_{step:08d}" for step in (3, 5))
    shutil.copytree(named, last)
    state = (last / "state.json").read_bytes()
    die_at(monkeypatch, TrainingRun, "_step", 1)
    with pytest.raises(Killed):
        TrainingRun(load_recipe(recipe_file, [f"output={tmp_path}", *RUN, f"resume={named}"])).train()
    assert (last / "state.json").read_bytes() == state
    assert len(json.loads((named / "state.json").read_text())["state"]["evaluations"]) == 1


def test_a_key_that_a_checkpoint_does_not_know_has_its_default(checkpoint: Path, recipe_file: Path) -> None:
    content = json.loads((checkpoint / "state.json").read_text())
    del content["recipe"]["evaluation"], content["recipe"]["optimization"]["ema_warmup_steps"]
    del content["recipe"]["transforms"]["scale"]
    (checkpoint / "state.json").write_text(json.dumps(content))
    assert resumed_state(checkpoint, load_recipe(recipe_file, RUN), 4).step == 6
    changed = load_recipe(recipe_file, [*RUN, "optimization.ema_warmup_steps=5", "evaluation.flip=true"])
    with pytest.raises(UserError, match=r"another recipe: evaluation.flip=True .*, .*ema_warmup_steps=5 \(was 0\)"):
        resumed_state(checkpoint, changed, 4)


ONE_PASS = ["training.gradient_accumulation=1", "training.batch_size=4", "training.samples_per_step=4"]


def test_two_passes_may_become_one(finished: Path, recipe_file: Path, tmp_path: Path) -> None:
    """The same samples a step in another number of passes, as when there was not enough memory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    resumed = [recipe_file, f"output={tmp_path}", *RUN, "resume=auto"]
    assert run_script(train, *resumed, *ONE_PASS) == 0
    checkpoint = tmp_path / LAST
    with pytest.raises(UserError, match=r"another recipe: training.batch_size=4 \(was 2\)"):
        resumed_state(checkpoint, load_recipe(recipe_file, [*RUN, "training.batch_size=4"]), 8)
    with pytest.raises(UserError, match=r"with 8 samples a step \(was 4\)"):
        resumed_state(checkpoint, load_recipe(recipe_file, [*RUN]), 8)


class Payload:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def checkpoint(finished: Path, tmp_path: Path) -> Iterator[Path]:
    yield shutil.copytree(finished / LAST, tmp_path / "copied")


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "scheduler.bin", "average.safetensors"])
def test_a_checkpoint_cannot_run_code(
    checkpoint: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    torch.save(Payload(tmp_path / "ran"), checkpoint / name)
    code = run_script(train, recipe_file, f"output={tmp_path / 'run'}", *RUN, f"resume={checkpoint}")
    assert not (tmp_path / "ran").exists()
    if name != "random_states_0.pkl":  # which is not used
        assert code == 1
        assert last_error(capsys).startswith("cannot restore")


@pytest.mark.parametrize("damage", ["{", '{"recipe": {}}', '{"recipe": [], "state": {}}'])
def test_a_damaged_state_is_named(
    checkpoint: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (checkpoint / "state.json").write_text(damage)
    assert run_script(train, recipe_file, f"output={tmp_path / 'run'}", *RUN, f"resume={checkpoint}") == 1
    assert "copied/state.json is damaged" in last_error(capsys)


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_a_power_cut_leaves_the_checkpoint_before(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """And what a kill leaves beside it is none, whatever is still in it."""
    older, newest = (tmp_path / "checkpoints" / f"step_{step:08d}" for step in (4, 6))
    for folder in (older, newest):
        shutil.copytree(finished / LAST, folder)
    for ending in replacing.LEFTOVERS:
        shutil.copytree(finished / LAST, newest.with_name(f"step_00000008{ending}"))
    assert checkpoints.last_checkpoint(tmp_path) == newest
    assert not caplog.records
    (newest / "state.json").write_text(damage)
    assert checkpoints.last_checkpoint(tmp_path) == older
    assert re.search(r"step_00000006/state.json is damaged: .*passed over", caplog.messages[0])


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed and renamed from now on, in order."""
    done: list[str] = []
    flush, rename, replace = replacing.flush, Path.rename, os.replace

    def note_flush(path: Path) -> None:
        done.append(f"flush {path.name}")
        flush(path)

    def note_rename(path: Path, target: Path) -> Path:
        done.append(f"name {Path(target).name}")
        return rename(path, target)

    def note_replace(path: Path, target: Path) -> None:
        done.append(f"name {Path(target).name}")
        replace(path, target)

    monkeypatch.setattr(replacing, "flush", note_flush)
    monkeypatch.setattr(replacing.Path, "rename", note_rename)
    monkeypatch.setattr(replacing.os, "replace", note_replace)
    return done


def test_files_are_on_the_disk_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new" / "inside").mkdir(parents=True)
    (tmp_path / "new" / "inside" / "weights").touch()
    done = recorded(monkeypatch)
    replacing.replace_folder(tmp_path / "new", tmp_path / "final")
    assert done == ["flush inside", "flush weights", "flush new", "name final", f"flush {tmp_path.name}"]
    done.clear()
    replacing.write_text(tmp_path / "text", "words")
    assert done == ["flush text.partial", "name text", f"flush {tmp_path.name}"]


def test_the_only_complete_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between the two names, until the new one has the name."""
    for name in ("new", "final.previous"):
        (tmp_path / name).mkdir()
    die_at(monkeypatch, replacing.Path, "rename", 1)
    with pytest.raises(Killed):
        replacing.replace_folder(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final.previous").is_dir()


def test_what_is_replaced_is_kept_until_the_new_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    die_at(monkeypatch, replacing.Path, "rename", 2)
    with pytest.raises(Killed):
        replacing.replace_folder(tmp_path / "new", tmp_path / "final")
    monkeypatch.undo()
    assert (tmp_path / "final.previous" / "final").exists()
    replacing.replace_folder(tmp_path / "new", tmp_path / "final")
    assert files(tmp_path) == ["final/new"]
