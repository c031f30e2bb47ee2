"""`python stopping.py STEP ARGUMENTS`: train.py that dies in its STEP-th step, in each process of a launch."""

import os
import signal
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train  # noqa: E402
from dense_prediction import command_line  # noqa: E402
from dense_prediction.training.loop import TrainingRun  # noqa: E402


def main(last: int, arguments: list[str]) -> None:
    look_back = TrainingRun._look_back

    def die(run: TrainingRun) -> None:
        if run.state.step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        look_back(run)

    TrainingRun._look_back = die
    sys.argv = ["train.py", *arguments]
    command_line.run(train.main)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
