"""How a script starts and ends."""

import os

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging

from dense_prediction import command_line
from dense_prediction.command_line import command, run, watch, without_secrets, without_their_progress_bars
from dense_prediction.errors import UserError


@pytest.mark.parametrize(("error", "code"), [(None, 0), (UserError("a mistake"), 1), (KeyboardInterrupt(), 130)])
def test_progress_bars_of_transformers_come_back(error: BaseException | None, code: int) -> None:
    """They are off while a script runs, in whose process others may go on afterwards."""
    enabled = []

    @without_their_progress_bars()
    def main() -> None:
        enabled.append(logging.is_progress_bar_enabled())
        if error is not None:
            raise error

    logging.enable_progress_bar()
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert (enabled, logging.is_progress_bar_enabled(), ended.value.code) == ([False], True, code)


def test_progress_bars_that_were_off_stay_off() -> None:
    logging.disable_progress_bar()
    with pytest.raises(SystemExit):
        run(without_their_progress_bars()(lambda: None))
    assert not logging.is_progress_bar_enabled()
    logging.enable_progress_bar()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--hub_token", "hf_a", "--bf16"], ["--hub_token", "...", "--bf16"]),
        (["--hub_token=hf_a", "data.path=/a"], ["--hub_token=...", "data.path=/a"]),
        (["data.token=a", "x.PASSWORD=b"], ["data.token=...", "x.PASSWORD=..."]),
        (["--push_to_hub_token", "--bf16", "a"], ["--push_to_hub_token", "--bf16", "a"]),
        (["my/tokens/photo.jpg", "data.path=tokens"], ["my/tokens/photo.jpg", "data.path=tokens"]),
    ],
)
def test_secrets_of_a_command_stay_out(given: list[str], shown: list[str]) -> None:
    assert without_secrets(given) == shown


def test_the_command_is_known_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "a.yaml"])
    known = []
    with pytest.raises(SystemExit):
        run(lambda: known.append(command()))
    assert (known, command()) == ([["train.py", "a.yaml"]], None)


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One in half a minute; a process that does not show them is silent."""
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    assert list(watch(range(7), "looking", "image")) == list(range(7))
    assert capsys.readouterr().err.splitlines() == ["looking: 2/7 image", "looking: 5/7 image"]
    assert list(watch(iter("abc"), "looking", shown=False)) == list("abc")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "is_watched", lambda: True)
    assert list(watch(range(7), "looking", "image")) == list(range(7))
    assert "\r" in capsys.readouterr().err


@pytest.mark.parametrize("watched", [True, False])
def test_bars_of_data_sets_would_fill_a_log(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the Hub are off with those of transformers."""
    monkeypatch.setattr(command_line, "is_watched", lambda: watched)
    monkeypatch.delenv("HF_DATASETS_DISABLE_PROGRESS_BARS", raising=False)
    with without_their_progress_bars():
        assert are_progress_bars_disabled()
        assert ("HF_DATASETS_DISABLE_PROGRESS_BARS" in os.environ) != watched
