"""Graphs that torch.jit records of a model: what TensorBoard draws, and what the older ONNX exporter writes."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from transformers import UperNetForSemanticSegmentation

from families import REPRESENTATIVES, family_of, images
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.deformable_attention import MultiScaleDeformableSelfAttention, deformable_attention_torch
from modeling_vit_comer.spatial_pyramid import PyramidShape
from tiny import tiny_config, wake_up


pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
OTHER_SIZES = [(96, 64), (64, 96), (128, 96), (32, 180)]


class Maps(nn.Module):
    """The backbone with a tuple for an output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(pixel_values).feature_maps)


def build(name: str = "augreg", **fields: Any) -> Maps:
    torch.manual_seed(0)
    small = {"trunk_config": family_of(name).trunk_config, "depths": [2], "layer_scale_init_value": 0.1}
    model = ViTCoMerBackbone(tiny_config(**small | {"num_extra_cti": 0} | fields))
    wake_up(model)
    return Maps(model).eval()


def assert_close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_trace(name: str) -> None:
    """For any batch, and for one size: another is an error and never another picture's grid."""
    model = build(name)
    traced = torch.jit.trace(model, images(64, 90), check_trace=False)
    with torch.no_grad():
        for batch in (1, 2, 3):
            assert_close(traced(images(64, 90, batch)), model(images(64, 90, batch)))
        for size in OTHER_SIZES:
            with pytest.raises(RuntimeError, match=r"unflatten: Provided sizes \[(64|90)\] don't multiply up"):
                traced(images(*size))
    assert not [node for node in traced.inlined_graph.nodes() if "comer_msda" in node.kind()]


@pytest.mark.usefixtures("implementation")
def test_trace_of_the_layer_and_in_training() -> None:
    layer, shape = MultiScaleDeformableSelfAttention(32, 2, 2, 1.0).requires_grad_(False), PyramidShape(4, 6)
    inputs = torch.randn(1, shape.num_tokens, 32), torch.randn(1, shape.num_tokens, 32)
    traced = torch.jit.trace(lambda query, value: layer(query, value, shape), inputs)
    assert_close(traced(*inputs), layer(*inputs, shape))
    model = build().train()
    traced = torch.jit.trace(model, images(64, 96), check_trace=False)
    assert_close(traced(images(64, 96)), model(images(64, 96)))


def test_trace_with_windows_and_as_it_is() -> None:
    model = build(window_sizes=[3, 0], use_prefix_tokens=False).model
    traced = torch.jit.trace(model, images(64, 90), strict=False)
    with torch.no_grad():
        assert_close(traced(images(64, 90))["feature_maps"], model(images(64, 90)).feature_maps)


@pytest.mark.usefixtures("implementation")
def test_trace_of_a_head() -> None:
    model = build().model.attach(UperNetForSemanticSegmentation, num_labels=3).eval()
    traced = torch.jit.trace(model, images(64, 96), strict=False)
    with torch.no_grad():
        assert_close(traced(images(64, 96))["logits"], model(images(64, 96)).logits)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("strict", [True, False])
def test_tensorboard(strict: bool, tmp_path: Path) -> None:
    model = build()
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(model if strict else model.model, images(64, 96), use_strict_trace=strict)
    assert b"sampling_offsets" in next(tmp_path.iterdir()).read_bytes()


@pytest.mark.usefixtures("implementation")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_onnx_exporter() -> None:
    pytest.importorskip("onnx", reason="the ONNX exporters need the onnx package")
    onnxruntime = pytest.importorskip("onnxruntime", reason="an ONNX file is run by onnxruntime")
    model, file = build(position_embedding_antialias=False), io.BytesIO()
    axes = {"pixels": {2: "height", 3: "width"}}
    torch.onnx.export(
        model, (images(64, 96),), file, dynamo=False, opset_version=18, input_names=["pixels"], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"pixels": images(64, 96).numpy()})
    assert_close(tuple(map(torch.from_numpy, outputs)), tuple(output.detach() for output in model(images(64, 96))))
    with pytest.raises(Exception, match="Reshape"):
        session.run(None, {"pixels": images(96, 64).numpy()})


def test_what_the_older_onnx_exporter_cannot_write() -> None:
    """The antialiased resize of positions: an error of torch's, which names it."""
    pytest.importorskip("onnx", reason="the ONNX exporters need the onnx package")
    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match="upsample_bicubic2d_aa"):
        torch.onnx.export(build(), (images(64, 96),), io.BytesIO(), dynamo=False, opset_version=18)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential, Maps])
def test_script(wrap: Any) -> None:
    with pytest.raises(TypeError, match=r"torch.jit.script cannot compile ViTCoMerBackbone: .* torch.export.export"):
        torch.jit.script(wrap(build().model))


def test_symbolic_trace() -> None:
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(build().model)


def test_the_sizes_of_a_compiled_graph_follow() -> None:
    torch._dynamo.reset()
    model = build()
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend="eager")
    with torch.no_grad():
        for size in ((64, 90), (96, 64), (33, 130)):
            assert_close(compiled(images(*size)), model(images(*size)))


def test_a_trace_uses_torch_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(
        "modeling_vit_comer.deformable_attention.deformable_attention_torch",
        lambda *arguments: called.append(True) or deformable_attention_torch(*arguments),
    )
    torch.jit.trace(build(), images(64, 96), check_trace=False)
    assert called
