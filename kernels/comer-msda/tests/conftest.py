"""Fixtures of the kernel's own tests: the build of this folder, and where to run it."""

from pathlib import Path
from types import ModuleType

import pytest
import torch


PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def kernel() -> ModuleType:
    """The kernel as `kernels` loads it. A CUDA build of torch prefers the CUDA variant, which has the CPU code too."""
    kernels = pytest.importorskip("kernels")
    for backend in (None, "cpu"):
        try:
            return kernels.get_local_kernel(PROJECT, backend=backend)
        except FileNotFoundError:
            continue
    pytest.skip("there is no build for this machine and torch: `make kernel`")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, kernel: ModuleType) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if request.param not in kernel.DEVICE_TYPES:
        pytest.skip("there is no CUDA build: `make kernel` where nvcc is")
    return torch.device(request.param)
