"""The wheel in use, outside of the checkout: the quick form of `make test-wheel`, with the packages that are here."""

import os
import subprocess
import sys
from pathlib import Path


def test_wheel_is_all_that_is_needed() -> None:
    command = [sys.executable, Path(__file__).with_name("try_wheel.py"), "--quick"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("the wheel brings all that it should\n")
