"""Which implementation the deformable attention runs on, and that nobody notices but the clock."""

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from modeling_vit_comer import kernel_choice
from modeling_vit_comer.deformable_attention import (
    MultiScaleDeformableSelfAttention,
    deformable_attention,
    deformable_attention_backend,
    deformable_attention_torch,
    use_deformable_attention_kernel,
)
from modeling_vit_comer.kernel_choice import LOCAL_KERNEL, kernel_for
from modeling_vit_comer.spatial_pyramid import PyramidShape


CPU = torch.device("cpu")
SHAPE = PyramidShape(4, 6)


@pytest.fixture(autouse=True)
def choice() -> Iterator[None]:
    yield
    use_deformable_attention_kernel("auto")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What a user sees with `transformers.logging.set_verbosity_info()`."""
    transformers_logging.enable_propagation()
    logger = logging.getLogger("modeling_vit_comer.kernel_choice")
    with caplog.at_level(logging.INFO, logger=logger.name):
        yield caplog
    transformers_logging.disable_propagation()


def layer_inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query, value = torch.randn(2, 2, SHAPE.num_tokens, 32, dtype=dtype)
    return query.requires_grad_(), value.requires_grad_()


def build_layer() -> MultiScaleDeformableSelfAttention:
    torch.manual_seed(0)
    return MultiScaleDeformableSelfAttention(hidden_size=32, num_heads=4, num_points=4, value_ratio=0.5)


@pytest.mark.usefixtures("native_kernel")
def test_auto_takes_the_local_build() -> None:
    use_deformable_attention_kernel("torch")
    assert deformable_attention_backend() == "torch"
    use_deformable_attention_kernel("auto")
    assert deformable_attention_backend("cpu") == "comer_msda:cpu"


@pytest.mark.usefixtures("native_kernel")
def test_folders_of_a_kernel() -> None:
    """The project, its `build` folder, and one variant's."""
    variant = Path(kernel_for(CPU, torch.float32).__file__).parent
    for folder in (LOCAL_KERNEL, LOCAL_KERNEL / "build", variant):
        use_deformable_attention_kernel("torch")
        use_deformable_attention_kernel(str(folder))
        assert deformable_attention_backend("cpu") == "comer_msda:cpu"


def test_folder_without_a_build(tmp_path: Path) -> None:
    pytest.importorskip("kernels")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        use_deformable_attention_kernel(str(tmp_path))


@pytest.mark.parametrize("kernel", ["", "fast", "no/such/folder", "./missing", "~/kernel"])
def test_neither_folder_nor_hub_id(kernel: str) -> None:
    with pytest.raises(ValueError, match="'auto', 'torch', the folder of a kernel or a Hub id"):
        use_deformable_attention_kernel(kernel)


def test_hub_kernel_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded unless a name is given; then with the version that our calls are written for."""
    kernels = pytest.importorskip("kernels")
    calls = []

    def get_kernel(name: str, **options: object) -> SimpleNamespace:
        calls.append((name, options))
        return SimpleNamespace(comer_msda=None, multi_scale_deformable_attention=None, DEVICE_TYPES=("cpu",))

    monkeypatch.setattr(kernels, "get_kernel", get_kernel)
    use_deformable_attention_kernel("auto")
    assert not calls
    use_deformable_attention_kernel("org/comer-msda", trust_remote_code=True)
    assert calls == [("org/comer-msda", {"version": 1, "trust_remote_code": True})]
    assert deformable_attention_backend("cpu") == "comer_msda:cpu"


def test_another_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("kernels")
    monkeypatch.setattr(kernels, "get_kernel", lambda *_, **__: ModuleType("relu"))
    with pytest.raises(ValueError, match="relu is not a ViT-CoMer kernel: it has no comer_msda"):
        use_deformable_attention_kernel("org/relu")


@pytest.mark.parametrize("module", [None, ModuleType("kernels")], ids=["missing", "our folder of that name"])
def test_without_the_kernels_package(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, tmp_path: Path, module: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "kernels", module)
    (tmp_path / "build").mkdir()
    monkeypatch.setattr(kernel_choice, "LOCAL_KERNEL", tmp_path)
    with pytest.raises(ImportError, match="pip install kernels"):
        use_deformable_attention_kernel(str(tmp_path))
    use_deformable_attention_kernel("auto")
    assert deformable_attention_backend() == "torch"
    assert "cannot be used, torch is used instead" in log.text


@pytest.mark.usefixtures("native_kernel")
def test_broken_build(monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """`auto` says what is wrong and goes on; whoever names the folder gets the error."""
    variant = Path(kernel_for(CPU, torch.float32).__file__).parent
    copy = tmp_path / "build" / variant.name
    shutil.copytree(variant, copy)
    for file in copy.glob("*.so"):
        file.rename(file.with_name("_broken.abi3.so")).write_bytes(b"not a library")
    (copy / "_ops.py").write_text("from . import _broken\n")
    metadata = copy / "metadata.json"
    metadata.write_text(metadata.read_text().replace(next(variant.glob("*.so")).name.split(".")[0], "_broken"))
    monkeypatch.setattr(kernel_choice, "LOCAL_KERNEL", tmp_path)
    with pytest.raises(ImportError):
        use_deformable_attention_kernel(str(tmp_path))
    use_deformable_attention_kernel("auto")
    assert deformable_attention_backend() == "torch"
    assert "cannot be used, torch is used instead" in log.text


def test_the_choice_is_logged_once(monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(kernel_choice, "_kernels", None)
    layer = build_layer()
    for _ in range(3):
        layer(*layer_inputs(), SHAPE)
    assert log.text.count("The deformable attention runs on") == 1


@pytest.mark.usefixtures("native_kernel")
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_no_kernel_for_other_dtypes(dtype: torch.dtype) -> None:
    assert kernel_for(CPU, dtype) is None


def test_no_kernel_for_other_devices() -> None:
    assert kernel_for(torch.device("meta"), torch.float32) is None
    assert deformable_attention_backend("meta") == "torch"


@pytest.mark.usefixtures("native_kernel")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_layer_equals_torch(dtype: torch.dtype, tolerance: float) -> None:
    """Output and the gradients of inputs and weights."""
    layer, results = build_layer().to(dtype), []
    for kernel in ("auto", "torch"):
        use_deformable_attention_kernel(kernel)
        inputs = layer_inputs(dtype)
        output = layer(*inputs, SHAPE)
        results.append([output, *torch.autograd.grad(output.square().sum(), [*inputs, *layer.parameters()])])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("native_kernel")
def test_autocast() -> None:
    layer, outputs = build_layer(), []
    for kernel in ("auto", "torch"):
        use_deformable_attention_kernel(kernel)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs.append(layer(*layer_inputs(), SHAPE))
    assert outputs[0].dtype == torch.bfloat16
    torch.testing.assert_close(*outputs)


@pytest.mark.usefixtures("native_kernel")
def test_compiled_layer_follows_the_choice() -> None:
    torch._dynamo.reset()
    layer = build_layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for kernel in ("auto", "torch", "auto"):
        use_deformable_attention_kernel(kernel)
        inputs = layer_inputs()
        torch.testing.assert_close(compiled(*inputs, SHAPE), layer(*inputs, SHAPE))


@pytest.mark.usefixtures("native_kernel")
def test_an_exported_graph_needs_no_kernel() -> None:
    with torch.no_grad():
        program = torch.export.export(build_layer(), (*layer_inputs(), SHAPE))
    assert "comer_msda" not in program.graph_module.code


@pytest.mark.usefixtures("native_kernel")
def test_the_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the same call must come to torch's implementation: neither is ever silently the other."""
    shape, heads, points = PyramidShape(2, 2), 2, 4
    value, offsets, logits = (torch.randn(1, shape.num_tokens, size) for size in (16, 48, 24))
    expected = deformable_attention_torch(value, offsets, logits, shape, heads)
    projection = torch.cat([offsets, logits], dim=-1)

    def unexpected(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("modeling_vit_comer.deformable_attention.deformable_attention_torch", unexpected)
    torch.testing.assert_close(deformable_attention(value, projection, shape, heads, points), expected)
    use_deformable_attention_kernel("torch")
    with pytest.raises(AssertionError):
        deformable_attention(value, projection, shape, heads, points)


class Doubled(nn.Linear):
    """What an adapter does: more than its weight says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("wrap", ["subclass", "hook", "replaced forward"])
def test_wrapped_projections_are_called(wrap: str) -> None:
    """LoRA, quantisation, offloading: the weights of such a layer alone would be silently wrong."""
    layer, (query, _) = build_layer(), layer_inputs()
    projection = layer.sampling_projection(query)
    plain, num_offsets = layer.sampling_offsets, layer.sampling_offsets.out_features
    if wrap == "subclass":
        layer.sampling_offsets = Doubled(plain.in_features, num_offsets)
        layer.sampling_offsets.load_state_dict(plain.state_dict())
    elif wrap == "hook":
        plain.register_forward_hook(lambda _, __, output: 2 * output)
    else:
        plain.forward = lambda x: 2 * nn.functional.linear(x, plain.weight, plain.bias)
    wrapped = layer.sampling_projection(query)
    torch.testing.assert_close(wrapped[..., :num_offsets], 2 * projection[..., :num_offsets])
    torch.testing.assert_close(wrapped[..., num_offsets:], projection[..., num_offsets:])
