"""One run at a time in an output folder: a file there names the process that has it, and binds nobody once that ended.

No `flock`, which network drives often lack. Nothing but the standard library and psutil is imported, so that a second
run is refused before torch is loaded.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ...errors import UserError


LOCK = ".vit-comer-run.lock"

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers say which process of a run this is."""
_SAME_START = 2.0
"""Seconds by which the clock may be set between two looks at when a process started."""
_TRIES, _PAUSE = 20, 0.1
"""At a lock that is being written or taken over by another process, and the seconds between them."""
_NOBODY = 0
"""In place of the process of a lock that nothing was written into yet."""


@dataclass(frozen=True)
class Holder:
    """A process that has the folder.

    Attributes:
        started: seconds since 1970 at which the process started, which tells it from a later one of the same `pid`; of
            a lock without a name in it, when it was made.
    """

    pid: int
    host: str
    started: float

    @classmethod
    def this_process(cls) -> "Holder":
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time())

    @property
    def is_this_process(self) -> bool:
        return self.pid == os.getpid() and self.host == socket.gethostname() and not self.is_gone

    @property
    def has_written(self) -> bool:
        """Whether the lock says whose it is."""
        return self.pid != _NOBODY

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended: of another machine's nothing can be said."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.started) > _SAME_START
            return is_another or process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder; of the processes of one run, the first does it for all.

    Raises:
        UserError: another run has it, or nothing can be written there.
    """
    if next((os.environ[name] for name in _RANKS if name in os.environ), "0") != "0":
        yield
        return
    is_new = not folder.exists()
    _take(folder / LOCK)
    try:
        yield
    finally:
        _release(folder / LOCK)
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _take(lock: Path) -> None:
    try:
        holder = _acquire(lock)
        if holder is None:
            _sweep(lock)
    except OSError as error:
        raise UserError(f"cannot write into output={lock.parent}: {error.strerror}") from error
    if holder is not None and not holder.is_this_process:
        raise UserError(_refusal(lock, holder))


def _acquire(lock: Path) -> Holder | None:
    """Make the file this process's, also where its process has ended; of a living one's, return who that is."""
    for _ in range(_TRIES):
        if _create(lock):
            return None
        holder = _read(lock)
        if holder is not None and not holder.has_written:
            time.sleep(_PAUSE)  # between the two system calls that create it and write into it
        elif holder is not None and not holder.is_gone:
            return holder
        elif holder is not None:
            _take_away(lock, holder)
    if holder is not None and not holder.has_written:
        _take_away(lock, holder)  # empty for so long: it was killed between these two
        return _acquire(lock)
    raise UserError(f"{lock} changes hands all the time: choose another folder with output=...")


def _refusal(lock: Path, holder: Holder) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.started))
    elsewhere = "" if holder.host == socket.gethostname() else f"; if it is no more, delete {lock}"
    return (
        f"another run has {lock.parent}: process {holder.pid} on {holder.host}, started {since}; wait for its end, or "
        f"choose another folder with output=...{elsewhere}"
    )


def _create(lock: Path) -> bool:
    """Make the lock this process's, unless there is one."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock.open("x", encoding="utf-8") as file:
            json.dump(asdict(Holder.this_process()), file)
    except FileExistsError:
        return False
    return True


def _read(lock: Path) -> Holder | None:
    """Who has the lock, or None if it is not there."""
    try:
        text, written = lock.read_text(encoding="utf-8"), lock.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        return Holder(int(content["pid"]), str(content["host"]), float(content["started"]))
    except (ValueError, KeyError, TypeError):
        return Holder(_NOBODY, "", written)


def _take_away(lock: Path, gone: Holder) -> None:
    """Remove the lock of a process that is gone, unless another process has done so already.

    A second file, which one process at a time can have, guards the look and the removal: between them nobody else
    takes the lock over, and it is never away while a living process has it.
    """
    guard = lock.with_name(f"{lock.name}.{gone.pid}")
    if _acquire(guard) is not None:
        time.sleep(_PAUSE)
        return
    if _read(lock) == gone:
        lock.unlink()
    guard.unlink(missing_ok=True)  # who has the lock now sweeps


def _sweep(lock: Path) -> None:
    """Remove the guards of processes that were killed while they took a lock away.

    To be called by who has the lock: what others guard is no longer the lock that they looked at.
    """
    for guard in lock.parent.glob(f"{lock.name}.*"):
        holder = _read(guard) if guard.name[len(lock.name) + 1 :].replace(".", "").isdecimal() else None
        if holder is not None and (holder.is_gone or not holder.has_written):
            guard.unlink(missing_ok=True)


def _release(lock: Path) -> None:
    holder = _read(lock)
    if holder is not None and holder.is_this_process:
        lock.unlink()
