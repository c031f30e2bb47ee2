"""`python killing.py KILLS SEED SECONDS CHANGES ARGUMENTS`: train.py killed again and again, and at last left to end.

Each run is a process of its own, forked from this one, which has imported everything: so it starts at once. It is
killed with SIGKILL at a random moment within the first SECONDS, or right before a random one of its first CHANGES
operations on the files of its output folder; with 0 seconds always the latter.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train  # noqa: E402
from dense_prediction import command_line  # noqa: E402


CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")


def main(kills: int, seed: int, longest: float, most_changes: int, arguments: list[str]) -> None:
    moments = random.Random(seed)
    output = next(argument.removeprefix("output=") for argument in arguments if argument.startswith("output="))
    done = 0
    while True:
        by_time = longest > 0 and moments.random() < 0.5
        seconds, changes = moments.uniform(0, longest), moments.randrange(1, most_changes)
        lives = done == kills
        child = fork(lambda: run(arguments, output, None if lives or by_time else changes))  # noqa: B023, runs at once
        status = wait(child, seconds if by_time and not lives else None)
        if not os.WIFSIGNALED(status):
            break
        done += 1
    print(f"{done} kills, exit code {os.waitstatus_to_exitcode(status)}")
    sys.exit(os.waitstatus_to_exitcode(status))


def fork(action: Callable[[], NoReturn]) -> int:
    child = os.fork()
    if child == 0:
        action()
    return child


def wait(child: int, seconds: float | None) -> int:
    """The status with which a child ends, at the latest when it is killed after so many seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.01)


def run(arguments: list[str], output: str, changes: int | None) -> NoReturn:
    """The script, killed before its so-manieth operation on the files in `output`."""
    if changes is not None:
        countdown = iter(range(changes))

        def hook(event: str, details: tuple[object, ...]) -> None:
            touches = event in CHANGES and str(details[0]).startswith(output)
            if touches and next(countdown, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
    sys.argv = ["train.py", *arguments]
    command_line.run(train.main)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
