"""Every instruction set that the CPU code has, in a process of its own: torch's variable chooses one."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


PROGRAM = """
import sys
from pathlib import Path
import torch
from kernels import get_local_kernel
sys.path.insert(0, sys.argv[2])
from reference import fused_reference, random_inputs, relative_error

kernel = get_local_kernel(Path(sys.argv[1]))
level_sizes = [8, 12, 4, 6, 2, 3]
for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)):
    for head_dim in (64, 32, 12, 5):
        inputs = [x.requires_grad_() for x in random_inputs(level_sizes, 2, head_dim, 4, dtype=dtype)]
        exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
        output = kernel.comer_msda(*inputs, level_sizes, 2, 4)
        exact = fused_reference(*exact_inputs, level_sizes, 2, 4)
        gradients = torch.autograd.grad(output.double().square().sum(), inputs)
        exact_gradients = torch.autograd.grad(exact.square().sum(), exact_inputs)
        for ours, theirs in zip((output.detach(), *gradients), (exact.detach(), *exact_gradients)):
            assert relative_error(ours, theirs) < tolerance, (dtype, head_dim, relative_error(ours, theirs))
"""


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_instruction_set(kernel: ModuleType, capability: str) -> None:
    folder, tests = Path(kernel.__file__).parent, Path(__file__).parent
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(tests)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
