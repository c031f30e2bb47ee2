"""The model as a citizen of transformers and torch: weights, dtypes, checkpointing, compilation, outputs, training."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.export import Dim
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel, Trainer
from transformers.models.vitdet.modeling_vitdet import VitDetResBottleneckBlock

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel
from modeling_vit_comer.deformable_attention import MultiScaleDeformableSelfAttention
from modeling_vit_comer.interaction import CTIToCNN, CTIToViT, add_residual
from modeling_vit_comer.spatial_pyramid import PyramidBatchNorm, SpatialPyramid
from modeling_vit_comer.trunk import TimmTrunkLayer
from tiny import TRUNK_ARGS, tiny_config, tiny_trunk, wake_up


def build(model_class: type = ViTCoMerBackbone, **fields: Any) -> ViTCoMerModel:
    """A tiny model in which every part has an effect on the outputs, in eval mode."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**{"layer_scale_init_value": 0.1} | fields))
    wake_up(model)
    return model.eval()


def images(height: int = 64, width: int = 96, batch: int = 2, **kwargs: Any) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1)).to(**kwargs)


def maps(model: ViTCoMerModel, pixel_values: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model(images() if pixel_values is None else pixel_values).feature_maps


def loss_of(model: ViTCoMerModel) -> torch.Tensor:
    return sum(feature_map.float().square().mean() for feature_map in model(images()).feature_maps)


def assert_close(actual: Any, expected: Any) -> None:
    """Equal but for the order of additions."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# Weights


@pytest.mark.parametrize("saved_class", [ViTCoMerBackbone, ViTCoMerModel])
@pytest.mark.parametrize("loaded_class", [ViTCoMerBackbone, ViTCoMerModel])
def test_save_and_load(saved_class: type, loaded_class: type, tmp_path: Path) -> None:
    """Model and backbone read each other's weights; every parameter and buffer, persistent or not, comes back."""
    saved = build(saved_class, residual_block_indexes=[1])
    saved.train()(images())  # moves the batch norms' statistics
    saved.eval().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]

    loaded, report = loaded_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_same(dict(loaded.named_parameters()), dict(saved.named_parameters()))
    assert_same(dict(loaded.named_buffers()), dict(saved.named_buffers()))
    assert_same(loaded(images()).feature_maps[-1], saved(images()).feature_maps[-1])


def test_build_on_the_meta_device() -> None:
    """Nothing that the model needs is computed from values in its constructor."""
    model = build(residual_block_indexes=[1])
    with torch.device("meta"):
        empty = ViTCoMerBackbone(model.config).eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    assert not [name for name, buffer in empty.named_buffers() if buffer.is_meta]
    assert_same(maps(empty), maps(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_load_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    half = ViTCoMerBackbone.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    for actual, expected in zip(maps(half), maps(model), strict=True):
        assert actual.dtype == dtype
        error = (actual.float() - expected).square().mean().sqrt()
        assert error < 0.03 * expected.std()


def test_double_precision() -> None:
    model = build()
    expected = maps(model)
    for actual, single in zip(maps(model.double(), images(dtype=torch.float64)), expected, strict=True):
        assert actual.dtype == torch.float64
        assert_close(actual.float(), single)


# The official initialisation


def test_gamma_of_zero_leaves_the_trunk_alone() -> None:
    """Untrained, the trunk computes what timm's own model computes, at its own size and at another."""
    vit = timm.create_model("vit_tiny_patch16_224", **TRUNK_ARGS, num_classes=0, dynamic_img_size=True).eval()
    model = build(ViTCoMerModel, layer_scale_init_value=0.0)
    model.trunk.load_pretrained(vit.state_dict())
    vit.norm = nn.Identity()
    for size in ((64, 64), (96, 160)):
        with torch.no_grad():
            torch.testing.assert_close(model(images(*size)).last_hidden_state, vit.forward_features(images(*size)))
    nn.init.constant_(model.stages[0].cti_to_vit.gamma, 0.1)
    with torch.no_grad():
        assert not torch.allclose(model(images()).last_hidden_state, vit.forward_features(images()), atol=1e-3)


class OwnHead(PreTrainedModel):
    """Somebody's own model with our backbone inside."""

    config_class = ViTCoMerConfig

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__(config)
        self.backbone = ViTCoMerBackbone(config)
        self.post_init()


@pytest.mark.parametrize("where", [ViTCoMerModel, OwnHead])
def test_initial_values(where: type) -> None:
    fields = {"layer_scale_init_value": 0.25, "residual_block_indexes": [0, 1]}
    model = where(tiny_config(deform_num_heads=4, deform_num_points=3, **fields))
    attentions = [module for module in model.modules() if isinstance(module, MultiScaleDeformableSelfAttention)]
    assert len(attentions) == 4 + 4 + 1
    for attention in attentions:
        assert_official_start(attention)
    for module in model.modules():
        if isinstance(module, SpatialPyramid):
            assert module.level_embed.std().item() == pytest.approx(1, abs=0.25)
        elif isinstance(module, CTIToViT):
            assert (module.gamma == 0.25).all()
        elif isinstance(module, VitDetResBottleneckBlock):
            assert not module.norm3.weight.any()


def assert_official_start(attention: MultiScaleDeformableSelfAttention) -> None:
    """Four heads that look right, down, left and up, with point k at k + 1 pixels, the same on every level."""
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    ring = directions[:, None, None] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    offsets = attention.sampling_offsets.bias.detach().view(4, 3, 3, 2)
    torch.testing.assert_close(offsets, ring.expand_as(offsets), rtol=0, atol=1e-6)
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()
    assert not attention.attention_weights.bias.any()


# Outputs


@pytest.mark.parametrize("model_class", [ViTCoMerBackbone, ViTCoMerModel])
def test_hidden_states_and_attentions(model_class: type) -> None:
    model = build(model_class, trunk_config=tiny_trunk(depth=4), depths=[1, 1, 1, 1])
    model.set_attn_implementation("eager")
    num_tokens = 1 + 4 * 6
    with torch.no_grad():
        plain = model(images())
        output = model(images(), output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is None
    assert plain.attentions is None
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, num_tokens, 32)] * 5
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, num_tokens, num_tokens)] * 4
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, num_tokens))
    assert_same(output.feature_maps, plain.feature_maps)
    if model_class is ViTCoMerModel:
        assert_same(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize(
    "fields", [{}, {"window_sizes": [2, 0], "use_prefix_tokens": False}], ids=["global", "windows"]
)
def test_eager_equals_sdpa(fields: dict[str, Any]) -> None:
    model = build(**fields)
    fused = [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")]
    with_sdpa = maps(model)
    model.set_attn_implementation("eager")
    assert_close(maps(model), with_sdpa)
    assert fused == [True, True]
    assert not any(module.fused_attn for module in model.modules() if hasattr(module, "fused_attn"))


def test_strides_and_channels() -> None:
    backbone = build(out_features=["stem", "stage2", "stage4"])
    assert backbone.strides == {"stem": 4, "stage2": 8, "stage4": 32}
    assert backbone.channels == [32, 32, 32]
    assert [feature_map.shape[-1] for feature_map in maps(backbone)] == [24, 12, 3]


def test_the_models_maps_are_the_backbones() -> None:
    backbone = build(out_features=["stem", "stage1", "stage2", "stage3", "stage4"])
    model = build(ViTCoMerModel)
    assert_same(maps(model), maps(backbone))


# Training


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    """The same loss, gradients and statistics, and everything that a layer computes is computed twice."""
    plain, checkpointed = (build(drop_path_rate=0.3).train() for _ in range(2))
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = count_calls(checkpointed)
    losses = []
    for model in (plain, checkpointed):
        torch.manual_seed(2)
        loss = loss_of(model)
        loss.backward()
        losses.append(loss.detach())
    assert_same(losses[1], losses[0])
    for (name, expected), actual in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, msg=name)
    assert_same(dict(checkpointed.named_buffers()), dict(plain.named_buffers()))
    assert calls == {TimmTrunkLayer: 2 * 2, CTIToViT: 2 * 4, CTIToCNN: 2 * 5}


def count_calls(model: ViTCoMerModel) -> dict[type, int]:
    """Counts, by class of layer, how often what is inside the layers runs."""
    inside = {TimmTrunkLayer: "block.attn", CTIToViT: "attention", CTIToCNN: "interaction"}
    calls = dict.fromkeys(inside, 0)

    def count(layer_class: type, *_: Any) -> None:
        calls[layer_class] += 1

    for layer in model.modules():
        if type(layer) in inside:
            layer.get_submodule(inside[type(layer)]).register_forward_pre_hook(partial(count, type(layer)))
    return calls


def test_residual_sums_keep_the_wider_dtype() -> None:
    """Under autocast the update is bfloat16 and the stream float32: in place, the stream would lose its bits."""
    stream, update = torch.full((4,), 1 + 2**-12), torch.ones(4)
    assert torch.equal(add_residual(update.bfloat16(), stream), stream + 1)
    assert add_residual(update, stream) is update
    assert torch.equal(update, stream + 1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_autocast(training: bool) -> None:
    model = build().train(training)
    expected = loss_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("part", ["trunk", "stages", "extra_ctis"])
def test_drop_path(part: str) -> None:
    """Each part drops paths in training, none in evaluation."""
    model = build(drop_path_rate=0.5)
    assert_same(maps(model), maps(model))
    model.get_submodule(part).train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    torch.manual_seed(0)
    first = maps(model)[-1]
    assert any(not torch.equal(maps(model)[-1], first) for _ in range(8))


def test_sync_batch_norm() -> None:
    model = build()
    count = sum(isinstance(module, PyramidBatchNorm) for module in model.modules())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert count == 6 + 4 * 3 + 4  # the stem pyramid, four MRFPs of three levels, the output norms
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == count
    assert not any(isinstance(module, PyramidBatchNorm) for module in converted.modules())


def test_no_weight_decay_on_norms() -> None:
    """The Trainer finds norms by class (nn.LayerNorm) and by name. Biases it never decays.

    Without the residual blocks: those are transformers' own VitDet module, whose norms its Trainer does not find.
    """
    model = build()
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    norms = [name for name, module in model.named_modules() if "Norm" in type(module).__name__ and module._parameters]
    matrices = {name for name, parameter in model.named_parameters() if parameter.dim() in (2, 4)}
    assert not [name for name in norms if f"{name}.weight" in decayed or f"{name}.bias" in decayed]
    assert matrices <= decayed


# Compilation


@pytest.fixture
def one_stage() -> ViTCoMerBackbone:
    """Every module once: what takes long in a compiler grows with the number of stages."""
    return build(depths=[2])


def test_compile_in_one_graph(one_stage: ViTCoMerBackbone) -> None:
    """One graph, compiled once more at the second size, for any size after that."""
    torch._dynamo.reset()
    compiled = torch.compile(one_stage, fullgraph=True, backend="aot_eager")
    for size in ((64, 96), (96, 128)):
        assert_close(maps(compiled, images(*size)), maps(one_stage, images(*size)))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_close(maps(compiled, images(128, 160)), maps(one_stage, images(128, 160)))


def test_compile_for_training(one_stage: ViTCoMerBackbone) -> None:
    torch._dynamo.reset()
    eager, compiled = deepcopy(one_stage).train(), one_stage.train()
    loss_of(eager).backward()
    loss_of(torch.compile(compiled, fullgraph=True, backend="aot_eager")).backward()
    for (name, expected), actual in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()))


def test_export_for_any_multiple_of_32(one_stage: ViTCoMerBackbone) -> None:
    sizes = {2: 32 * Dim("height", min=2, max=64), 3: 32 * Dim("width", min=2, max=64)}
    exported = torch.export.export(one_stage, (images(),), dynamic_shapes={"pixel_values": sizes}).module()
    for size in ((64, 96), (160, 128), (64, 64)):
        assert_close(maps(exported, images(*size)), maps(one_stage, images(*size)))


@pytest.mark.slow
def test_compile_with_inductor(one_stage: ViTCoMerBackbone) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(one_stage, fullgraph=True)
    assert_close(maps(compiled), maps(one_stage))
