"""A second run in an output folder is refused; what a killed one leaves there binds nobody."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

import finetune_with_trainer
import train
from dense_prediction.errors import UserError
from dense_prediction.training.loop import TrainingRun
from dense_prediction.training.processes import folder_lock
from dense_prediction.training.processes.folder_lock import LOCK, locked
from miniature import ROOT
from scripts_in_process import last_error, run_script


HOLD = """
import sys, time
from pathlib import Path
from dense_prediction.training.processes.folder_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
CONTEND = """
import sys, time
from pathlib import Path
from dense_prediction.errors import UserError
from dense_prediction.training.processes.folder_lock import locked
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
try:
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(3)
except UserError as error:
    print(error)
"""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RANK"} | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the folder `run`."""
    process = start(HOLD, tmp_path / "run")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
@pytest.mark.parametrize("override", ["resume=auto", "overwrite=true"])
def test_a_second_run_is_refused(
    holder: subprocess.Popen[str],
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: ModuleType,
    override: str,
) -> None:
    lock = tmp_path / "run" / LOCK
    before = lock.read_text()
    assert run_script(script, recipe_file, f"output={tmp_path / 'run'}", "training.steps=1", override) == 1
    day = time.strftime("%Y-%m-%d")
    message = (
        rf"another run has {tmp_path}/run: process {holder.pid} on {re.escape(socket.gethostname())}, started {day}"
    )
    assert re.search(message, last_error(capsys))
    assert lock.read_text() == before
    assert [path.name for path in lock.parent.iterdir()] == [LOCK]


@pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
def test_a_killed_run_does_not_block(
    holder: subprocess.Popen[str], recipe_file: Path, tmp_path: Path, script: ModuleType
) -> None:
    """Nor does it while nobody has asked for how it ended: it is a zombie until then."""
    holder.send_signal(signal.SIGKILL)
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert (tmp_path / "run" / LOCK).exists()
    assert run_script(script, recipe_file, f"output={tmp_path / 'run'}", "training.steps=1") == 0
    assert not list((tmp_path / "run").glob(f"{LOCK}*"))


def write_lock(folder: Path, **changes: object) -> None:
    holder = {"pid": os.getppid(), "host": socket.gethostname(), "started": psutil.Process(os.getppid()).create_time()}
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(holder | changes))


def test_a_process_with_the_number_of_another_does_not_block(tmp_path: Path) -> None:
    write_lock(tmp_path)
    with pytest.raises(UserError, match="another run has"), locked(tmp_path):
        pass
    write_lock(tmp_path, started=psutil.Process(os.getppid()).create_time() - 60)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_nothing_is_known_of_another_machine(tmp_path: Path) -> None:
    write_lock(tmp_path, host="elsewhere", pid=2**22 + 1)
    with (
        pytest.raises(UserError, match=f"on elsewhere, .*; if it is no more, delete {tmp_path / LOCK}"),
        locked(tmp_path),
    ):
        pass
    (tmp_path / LOCK).unlink()  # as the message advises
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": "", "started": 0}'])
def test_a_lock_that_was_never_written_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Its process was killed right after it made the file."""
    monkeypatch.setattr(folder_lock, "_TRIES", 2)
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_one_of_many_takes_over(tmp_path: Path) -> None:
    """All find the lock of a process that is gone, at the same time."""
    write_lock(tmp_path, pid=2**22 + 1)
    moment = time.time() + 2
    processes = [start(CONTEND, tmp_path, moment) for _ in range(6)]
    answers = [process.communicate()[0] for process in processes]
    assert sorted(answer.split()[0] for answer in answers) == ["another"] * 5 + ["held"]
    assert not list(tmp_path.iterdir())


def test_the_processes_of_a_run_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(tmp_path)
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path):
        pass
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="another run has"), locked(tmp_path):
        pass


@pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
def test_a_run_that_never_started_leaves_nothing(recipe_file: Path, tmp_path: Path, script: ModuleType) -> None:
    assert run_script(script, recipe_file, f"output={tmp_path / 'run'}", "resume=absent") == 1
    assert not (tmp_path / "run").exists()


def test_python_has_the_lock_too(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dense_prediction import train as train_in_python

    held = []
    monkeypatch.setattr(TrainingRun, "_step", lambda run, batches: held.append((run.output / LOCK).exists()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_in_python(recipe_file, {"output": str(tmp_path)})
    assert held == [True]
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_made(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run_script(train, recipe_file, f"output={tmp_path / 'file' / 'run'}") == 1
    assert last_error(capsys) == f"cannot write into output={tmp_path / 'file' / 'run'}: Not a directory"


def write_holder(path: Path, pid: int) -> None:
    path.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "started": 5.0}))


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_that_has_changed_hands_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its removal another run may have taken over.

    Its lock is never away, not for a moment, or a third run would have the folder too.
    """
    lock = tmp_path / LOCK
    write_holder(lock, os.getpid())
    before, there, read = lock.read_text(), [], folder_lock._read

    def watched(path: Path) -> folder_lock.Holder | None:
        there.append(lock.exists())
        return read(path)

    monkeypatch.setattr(folder_lock, "_read", watched)
    folder_lock._take_away(lock, folder_lock.Holder(ended_pid(), socket.gethostname(), 5.0))
    assert there == [True]
    assert lock.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    folder_lock._take_away(lock, read(lock))
    assert not list(tmp_path.iterdir())


def test_one_at_a_time_takes_a_lock_away(tmp_path: Path) -> None:
    """While another living process does so, it is left to that one; a killed one's work is done anew."""
    lock, gone = tmp_path / LOCK, folder_lock.Holder(ended_pid(), socket.gethostname(), 5.0)
    guard = tmp_path / f"{LOCK}.{gone.pid}"
    write_lock(tmp_path)
    os.replace(lock, guard)
    write_holder(lock, gone.pid)
    folder_lock._take_away(lock, gone)
    assert lock.exists()
    assert guard.exists()
    write_holder(guard, ended_pid())
    folder_lock._take_away(lock, gone)
    assert not list(tmp_path.iterdir())


def test_what_a_kill_leaves_of_a_lock_goes(tmp_path: Path) -> None:
    """A guard that a living process has, and files of others, stay."""
    write_lock(tmp_path)
    os.replace(tmp_path / LOCK, tmp_path / f"{LOCK}.12")
    stays = {f"{LOCK}.12", f"{LOCK}.mine", "mine.txt"}
    for name in (f"{LOCK}.mine", "mine.txt", f"{LOCK}.13"):
        write_holder(tmp_path / name, ended_pid())
    (tmp_path / f"{LOCK}.14.15").touch()
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*stays, LOCK}
    assert {path.name for path in tmp_path.iterdir()} == stays
