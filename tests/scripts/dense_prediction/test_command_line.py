"""How a script starts and ends."""

import pytest
from transformers.utils import logging

from dense_prediction.command_line import run, without_their_progress_bars
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
