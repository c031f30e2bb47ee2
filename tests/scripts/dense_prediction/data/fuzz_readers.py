"""Readers of data fed with damaged files: `python fuzz_readers.py --reader coco --seconds 600 --seed 0`.

Only `UserError` may leave a reader, and what it gives must be sound. A case is determined by its reader, seed and
number, and runs in a child process, so that a crash, a hang or a flood of memory is found as well; `--case N` repeats
one here, with its traceback.
"""

import argparse
import hashlib
import logging
import multiprocessing
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

from dense_prediction.errors import UserError
from fuzz_cases import READERS
from fuzz_pictures import whole


MOST_SECONDS = 30.0
"""Of work for one case: it reads a few samples, and the largest picture that Pillow opens takes seconds."""

MOST_BYTES = 2 * 2**30
"""How much a case may add to the memory of the process."""

PREFIX = "fuzzed_"
"""Of the folders that data sets are written to."""

Finding = tuple[int, str]
"""The number of a case, and what went wrong."""


def run_case(reader: str, seed: int, number: int) -> bool:
    """Whether the reader has given a sample.

    Raises:
        Exception: whatever a reader must not raise, or an `AssertionError` of what it gave.
    """
    random = Random(hashlib.sha256(f"{reader} {seed} {number}".encode()).digest())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        return READERS[reader](folder, random)
    except UserError as error:
        assert str(error).strip(), "an error must say something"
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(pipe: Connection, reader: str, seed: int) -> None:
    logging.getLogger("dense_prediction").setLevel(logging.ERROR)  # a thousand samples are skipped and said to be
    while (number := pipe.recv()) is not None:
        try:
            pipe.send((run_case(reader, seed, number), None))
        except Exception as error:  # what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            text = re.sub(rf"{PREFIX}\w+", "FOLDER", str(error))
            pipe.send((False, f"{type(error).__name__} in {where}: {text[:200]!r}"))


class Used(NamedTuple):
    """What a process has taken: seconds of work, and bytes of memory now."""

    seconds: float
    memory: int


class Child:
    """A process that runs cases of one reader; it is started anew after a crash."""

    def __init__(self, reader: str, seed: int) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        # A fork shares what is imported, so that a new one is there at once.
        self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs, reader, seed))
        self.process.start()
        theirs.close()
        self.watched = psutil.Process(self.process.pid)

    def run(self, number: int) -> tuple[bool, str | None]:
        """Whether a sample was read, and what went wrong if something did."""
        self.pipe.send(number)
        before, start = self._used(), time.monotonic()
        while not self.pipe.poll(0.02):
            now, waited = self._used(), time.monotonic() - start
            # A process that waits does no work, and one of many gets to work slowly.
            if now.seconds - before.seconds > MOST_SECONDS or waited > 10 * MOST_SECONDS:
                return False, f"takes more than {MOST_SECONDS:g} s"
            if now.memory - before.memory > MOST_BYTES:
                return False, f"takes more than {MOST_BYTES // 2**20} MiB"
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            return False, f"the process died: exit code {self.process.exitcode}"

    def _used(self) -> "Used":
        """Nothing where the process has died."""
        try:
            with self.watched.oneshot():
                times = self.watched.cpu_times()
                return Used(times.user + times.system, self.watched.memory_info().rss)
        except psutil.NoSuchProcess:
            return Used(0.0, 0)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def fuzz(reader: str, seed: int, seconds: float, most_cases: int | None = None) -> tuple[int, int, list[Finding]]:
    """The number of cases, how many of them gave a sample, and what was found."""
    whole()  # before a child is there, so that all have it
    end, number, read, findings = time.monotonic() + seconds, 0, 0, []
    child = Child(reader, seed)
    try:
        while time.monotonic() < end and number != most_cases:
            sample, finding = child.run(number)
            read += sample
            if finding is not None:
                findings.append((number, finding))
                if "takes" in finding or "died" in finding:
                    child.close()
                    child = Child(reader, seed)
            number += 1
    finally:
        child.close()
    return number, read, findings


def _report(findings: list[Finding]) -> str:
    """Each kind once, with the number of its first case."""
    kinds = Counter(finding for _, finding in findings)
    first = {finding: number for number, finding in reversed(findings)}
    return "\n".join(f"  {count} x {finding} (--case {first[finding]})" for finding, count in kinds.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone, in this process")
    arguments = parser.parse_args()
    if arguments.case is not None:
        print("read a sample" if run_case(arguments.reader, arguments.seed, arguments.case) else "read no sample")
        return 0
    cases, read, findings = fuzz(arguments.reader, arguments.seed, arguments.seconds)
    print(f"{arguments.reader}, seed {arguments.seed}: {cases} cases, {read} with a sample, {len(findings)} findings")
    if findings:
        print(_report(findings))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
