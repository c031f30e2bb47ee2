"""A short run of `fuzz_readers.py` for each reader; and that it would notice what it looks for."""

import os
import re
import signal
import time
from pathlib import Path
from random import Random

import pytest

from dense_prediction.errors import UserError
from fuzz_readers import READERS, fuzz


CASES = {
    "images": 300,
    "coco": 100,
    "coco_panoptic": 100,
    "voc": 60,
    "folders": 60,
    "instance_masks": 60,
    "yolo": 60,
    "datasets": 60,
}


def test_every_reader_is_run() -> None:
    assert CASES.keys() == READERS.keys()


@pytest.mark.parametrize("reader", CASES)
def test_nothing_but_a_users_error_leaves_a_reader(reader: str) -> None:
    cases, read, findings = fuzz(reader, seed=0, seconds=600, most_cases=CASES[reader])
    assert not findings
    assert cases == CASES[reader]
    assert 0 < read < cases, "some cases must be read, and some refused"


def fails(folder: Path, random: Random) -> bool:
    raise random.choice([KeyError("a"), RecursionError("b")])


def refuses_without_a_word(folder: Path, random: Random) -> bool:
    raise UserError("")


def crashes(folder: Path, random: Random) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def hangs(folder: Path, random: Random) -> bool:
    while True:
        pass


def waits(folder: Path, random: Random) -> bool:
    time.sleep(1000)
    return True


def floods(folder: Path, random: Random) -> bool:
    held = []
    while True:
        held.append(bytearray(b"1") * 2**20)
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (fails, r"(KeyError|RecursionError) in test_fuzzed_readers.py:\d+"),
        (refuses_without_a_word, "AssertionError in fuzz_readers.py.*an error must say something"),
        (crashes, "the process died: exit code -9"),
        (hangs, "takes more than 0.5 s"),
        (waits, "takes more than 0.5 s"),
        (floods, "takes more than 50 MiB"),
    ],
)
def test_the_harness_notices(reader: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "toy", reader)
    monkeypatch.setattr("fuzz_readers.MOST_SECONDS", 0.5)
    monkeypatch.setattr("fuzz_readers.MOST_BYTES", 50 * 2**20)
    _, read, findings = fuzz("toy", seed=0, seconds=60, most_cases=1)
    assert (read, [number for number, _ in findings]) == (0, [0])
    for _, finding in findings:
        assert re.search(message, finding)
