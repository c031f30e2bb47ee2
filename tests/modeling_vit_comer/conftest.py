from collections.abc import Iterator

import pytest
import torch

from modeling_vit_comer.deformable_attention import deformable_attention_backend, use_deformable_attention_kernel
from modeling_vit_comer.kernel_choice import LOCAL_KERNEL


TRANSFORMERS_MARKERS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "torch_compile_test",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in TRANSFORMERS_MARKERS:
        config.addinivalue_line("markers", f"{marker}: used in transformers' own tests")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make the tiny models many times slower on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def native_kernel() -> Iterator[None]:
    """Let the models run on this repository's kernel, or skip; a silent way back to torch is a failure."""
    pytest.importorskip("kernels")
    try:
        use_deformable_attention_kernel(str(LOCAL_KERNEL))
    except FileNotFoundError:
        pytest.skip("there is no build for this machine and torch: `make kernel`")
    assert deformable_attention_backend("cpu") == "comer_msda:cpu"
    yield
    use_deformable_attention_kernel("auto")


@pytest.fixture
def torch_implementation() -> Iterator[None]:
    use_deformable_attention_kernel("torch")
    assert deformable_attention_backend("cpu") == "torch"
    yield
    use_deformable_attention_kernel("auto")


@pytest.fixture(params=["torch_implementation", "native_kernel"])
def implementation(request: pytest.FixtureRequest) -> None:
    """Run a test twice: without the native kernel and with it."""
    request.getfixturevalue(request.param)
