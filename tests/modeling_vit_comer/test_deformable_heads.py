"""transformers' own deformable attention heads, switched to a kernel and back: same outputs, same gradients."""

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from modeling_vit_comer import ViTCoMerBackbone, deformable_heads, kernel_choice
from modeling_vit_comer.deformable_heads import ATTRIBUTE, OUTSIDE, restore_heads, split_levels, use_kernel_in_heads
from modeling_vit_comer.kernel_choice import use_deformable_attention_kernel
from test_heads import BATCH, GROUNDING_DINO, HEADS, NUM_LABELS, RT_DETR, Batch, Head, boxes_of_phrases
from tiny import tiny_config


class HeadOnItsOwnBackbone(Head):
    """LW-DETR and RF-DETR: heads that take no other backbone, and square images."""

    def build(self) -> PreTrainedModel:
        config = getattr(transformers, self.config)(num_labels=NUM_LABELS, **self.fields)
        return getattr(transformers, self.model)(config)

    def inputs(self) -> Batch:
        return {"pixel_values": torch.randn(BATCH, 3, 64, 64)}


def task() -> Batch:
    return {"task_inputs": torch.randn(BATCH, 5)}


def classes_of_tasks() -> Batch:
    """One task and two classes an image, five tokens each."""
    classes, tasks = torch.randint(1, 50, (2 * BATCH, 5)), torch.randint(1, 50, (BATCH, 5))
    ids = {"classes_input_ids": classes, "tasks_input_ids": tasks}
    masks = {name.replace("input_ids", "attention_mask"): torch.ones_like(value) for name, value in ids.items()}
    return ids | masks | {"classes_structure": torch.full((BATCH,), 2)}


ONEFORMER = {
    "conv_dim": 32,
    "mask_dim": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "num_attention_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "query_dec_layers": 1,
    "num_queries": 6,
    "task_seq_len": 5,
}
CLIP = {
    "model_type": "clip_text_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OMDET_TURBO = {
    "text_config": CLIP,
    "apply_layernorm_after_vision_backbone": False,
    "text_projection_in_dim": 16,
    "text_projection_out_dim": 16,
    "task_encoder_hidden_dim": 32,
    "class_embed_dim": 16,
    "num_queries": 6,
    "encoder_hidden_dim": 32,
    "vision_features_channels": [32, 32, 32],
    "encoder_in_channels": [32, 32, 32],
    "encoder_attention_heads": 2,
    "encoder_dim_feedforward": 32,
    "decoder_hidden_dim": 32,
    "decoder_num_heads": 2,
    "decoder_num_layers": 2,
    "decoder_dim_feedforward": 32,
}
VIT = {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "out_indices": [1, 2]}
DETR_ON_VIT = {
    "d_model": 32,
    "c2f_num_blocks": 1,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "num_queries": 6,
    "group_detr": 2,
}
LW_DETR = DETR_ON_VIT | {
    "backbone_config": {"model_type": "lw_detr_vit", "window_block_indices": [0], "num_windows": 4} | VIT,
    "projector_scale_factors": [2.0, 0.5],
}
RF_DETR = DETR_ON_VIT | {
    "backbone_config": {"model_type": "rf_detr_dinov2", "patch_size": 16, "num_windows": 2} | VIT,
}
READING_ORDER = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "coordinate_size": 8,
    "shape_size": 8,
    "relation_bias_embed_dim": 8,
    "global_pointer_head_size": 8,
}
PP_DOCLAYOUT_V2 = RT_DETR | {
    "reading_order_config": READING_ORDER,
    "class_thresholds": [0.1] * NUM_LABELS,
    "class_order": list(range(NUM_LABELS)),
}
PP_DOCLAYOUT_V4 = RT_DETR | {"global_pointer_head_size": 8}
PP_DOCLAYOUT_V3 = PP_DOCLAYOUT_V4 | {"x4_feat_dim": 32, "mask_feature_channels": [16, 16], "num_prototypes": 4}


def detector(name: str, fields: dict[str, Any], stages: tuple[int, ...] = (2, 3, 4), labels: Any = dict) -> Head:
    return Head(f"{name}ForObjectDetection", f"{name}Config", stages, labels, fields)


# Heads whose attention is a layer of its own, a function of their file, and an attribute.
LAYERS = {
    "deformable_detr": HEADS["deformable_detr"],
    "rt_detr": HEADS["rt_detr"],
    "grounding_dino": HEADS["grounding_dino"],
    "mm_grounding_dino": detector("MMGroundingDino", GROUNDING_DINO, labels=boxes_of_phrases),
    "omdet_turbo": detector("OmDetTurbo", OMDET_TURBO, labels=classes_of_tasks),
    "pp_doclayout_v2": detector("PPDocLayoutV2", PP_DOCLAYOUT_V2),
    "pp_doclayout_v3": detector("PPDocLayoutV3", PP_DOCLAYOUT_V3, stages=(1, 2, 3, 4)),
    "pp_doclayout_v4": detector("PPDocLayoutV4", PP_DOCLAYOUT_V4),
    "lw_detr": HeadOnItsOwnBackbone(*detector("LwDetr", LW_DETR)),
    "rf_detr": HeadOnItsOwnBackbone(*detector("RfDetr", RF_DETR)),
}
FUNCTIONS = {
    "mask2former": HEADS["mask2former"],
    "oneformer": Head("OneFormerForUniversalSegmentation", "OneFormerConfig", (1, 2, 3, 4), task, ONEFORMER),
    "rt_detr_v2": HEADS["rt_detr_v2"],
}
ATTRIBUTES = {
    "d_fine": HEADS["d_fine"],
    "d_fine_as_published": detector("DFine", RT_DETR | {"decoder_n_points": [3, 6, 3]}),
    "deimv2": HEADS["deimv2"],
}
ALL = LAYERS | FUNCTIONS | ATTRIBUTES
ONE_OF_EACH = pytest.mark.parametrize(
    "head", [pytest.param(ALL[name], id=name) for name in ("deformable_detr", "mask2former", "rt_detr_v2", "d_fine")]
)

Outputs = dict[str, torch.Tensor]
Run = tuple[Outputs, dict[str, torch.Tensor]]


def grid_sample_kernel(
    value: torch.Tensor, sampling_locations: torch.Tensor, attention_weights: torch.Tensor, level_sizes: list[int]
) -> torch.Tensor:
    """What the kernel computes, arguments and all, by torch."""
    batch, _, heads, _ = value.shape
    sizes = list(zip(level_sizes[::2], level_sizes[1::2]))
    output = torch.zeros((), dtype=sampling_locations.dtype)
    for level, tokens in enumerate(value.split([height * width for height, width in sizes], dim=1)):
        # (batch, height * width, heads, head_dim) -> (batch * heads, head_dim, height, width)
        image = tokens.unflatten(1, sizes[level]).permute(0, 3, 4, 1, 2).flatten(0, 1).to(output.dtype)
        # (batch, queries, heads, points, 2) -> (batch * heads, queries, points, 2)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        # (batch, queries, heads, points) -> (batch * heads, 1, queries, points)
        weights = attention_weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        output = output + (F.grid_sample(image, grid, align_corners=False) * weights).sum(-1)
    # (batch * heads, head_dim, queries) -> (batch, queries, heads * head_dim)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


class Kernel:
    """A kernel that counts its calls and insists on what is promised to it."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function, self.calls = function, 0

    def multi_scale_deformable_attention(
        self, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor, level_sizes: list[int]
    ) -> torch.Tensor:
        self.calls += 1
        dtype = torch.promote_types(value.dtype, torch.float32)
        assert locations.dtype == weights.dtype == dtype
        assert (*weights.shape, 2) == locations.shape and 2 * weights.shape[3] == len(level_sizes)
        output = self.function(value, locations, weights, level_sizes)
        assert output.dtype == value.dtype
        return output


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(grid_sample_kernel)
    monkeypatch.setattr(deformable_heads, "kernel_for", lambda device, dtype: kernel)
    return kernel


@pytest.fixture(params=["grid_sample", "comer_msda"])
def kernel(request: pytest.FixtureRequest, stand_in: Kernel) -> Kernel:
    """The stand-in, and the native kernel."""
    if request.param == "comer_msda":
        request.getfixturevalue("native_kernel")
        native = kernel_choice.kernel_for(torch.device("cpu"), torch.float32)
        stand_in.function = native.multi_scale_deformable_attention
    return stand_in


def build(head: Head, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model with weights of the usual size and normed activations: as initialised, some heads' all but vanish."""
    torch.manual_seed(0)
    model = head.build().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return model.to(dtype)


def inputs_of(head: Head, dtype: torch.dtype = torch.float32) -> Batch:
    torch.manual_seed(1)
    inputs = {name: value for name, value in head.inputs().items() if "labels" not in name}
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def outputs_of(model: PreTrainedModel, inputs: Batch) -> Outputs:
    for name in ("language_cache_class", "language_cache_prompt"):
        # OmDet-Turbo keeps the embeddings of texts, and the graph behind them.
        if hasattr(model, name):
            getattr(model, name).cache.clear()
    return {name: value for name, value in model(**inputs).items() if isinstance(value, torch.Tensor)}


def run(model: PreTrainedModel, inputs: Batch) -> Run:
    """Outputs, and the gradients of a weighted sum of them."""
    model.zero_grad()
    outputs = outputs_of(model, inputs)
    usual = [value[is_usual(value)] for value in outputs.values() if value.requires_grad]
    sum((value * torch.linspace(-1, 1, value.numel()).to(value)).sum() for value in usual).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {name: value.detach() for name, value in outputs.items()}, gradients


def is_usual(value: torch.Tensor) -> torch.Tensor:
    """Some heads mark what is missing by infinity or the largest number there is."""
    return value.abs() < 1e4


def largest(value: torch.Tensor) -> float:
    return value[is_usual(value)].abs().max().item()


def assert_close(actual: Run, expected: Run, outputs: float, gradients: float) -> None:
    """Each tensor to within this fraction of its largest number.

    A bias in front of a norm or a softmax has no gradient but rounding: vectors get a tenth of it of the largest
    of all gradients besides.
    """
    floor = 0.1 * gradients * max(map(largest, expected[1].values()))
    for ours, theirs, tolerance in zip(actual, expected, (outputs, gradients)):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            atol = tolerance * largest(value) + (floor if value.dim() == 1 else 0)
            torch.testing.assert_close(ours[name], value, rtol=0, atol=atol, msg=partial("{}: {}".format, name))


def assert_equal(actual: Outputs, expected: Outputs) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def switched_state(model: nn.Module) -> dict[str, Any]:
    """Whatever of the switch is left in a model."""
    state = {}
    for name, module in model.named_modules():
        if "forward" in vars(module):
            state[f"{name}.forward"] = module.forward
        if isinstance(vars(module).get(ATTRIBUTE), partial):
            state[f"{name}.{ATTRIBUTE}"] = vars(module)[ATTRIBUTE]
    return state


# The same formula in float64 shows that what differs in float32 is rounding, which the norms amplify on its way back.
TOLERANCES = {torch.float64: (1e-11, 1e-10), torch.float32: (1e-5, 1e-4)}


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [("grid_sample", torch.float64), ("comer_msda", torch.float64), ("comer_msda", torch.float32)],
    indirect=["kernel"],
    ids=str,
)
@pytest.mark.parametrize("head", ALL.values(), ids=ALL.keys())
def test_same_outputs_and_gradients(head: Head, kernel: Kernel, dtype: torch.dtype) -> None:
    model, inputs = build(head, dtype), inputs_of(head, dtype)
    expected = run(model, inputs)
    names = use_kernel_in_heads(model)
    actual = run(model, inputs)
    assert kernel.calls == len(names) > 0
    assert_close(actual, expected, *TOLERANCES[dtype])


@pytest.mark.parametrize("head", ALL.values(), ids=ALL.keys())
@torch.no_grad()
def test_restoring_leaves_no_trace(head: Head, stand_in: Kernel) -> None:
    model, inputs = build(head), inputs_of(head)
    expected, keys = outputs_of(model, inputs), list(model.state_dict())
    names = use_kernel_in_heads(model)
    switched = switched_state(model)
    assert len(switched) == len(names) > 0
    assert list(model.state_dict()) == keys
    assert use_kernel_in_heads(model) == names
    assert switched_state(model) == switched

    assert restore_heads(model) == names
    assert not switched_state(model)
    assert_equal(outputs_of(model, inputs), expected)
    assert stand_in.calls == 0
    assert restore_heads(model) == []


def test_names_are_those_of_the_attentions() -> None:
    model = build(HEADS["deformable_detr"])
    names = ["encoder.layers.0.self_attn", "decoder.layers.0.encoder_attn", "decoder.layers.1.encoder_attn"]
    assert use_kernel_in_heads(model) == [f"model.{name}.attn" for name in names]
    part = model.model.encoder.layers[0].self_attn.attn
    assert restore_heads(part) == [""]
    assert use_kernel_in_heads(part) == [""]


def test_every_layer_of_transformers_is_the_same() -> None:
    """One signature and one arithmetic: whatever else has a layer of that name can be switched too."""
    sources = {}
    for path in Path(transformers.__file__).parent.glob("models/*/modeling_*.py"):
        found = re.search(r"^class MultiScaleDeformableAttention\(.*?(?=^\S)", path.read_text("utf-8"), re.M | re.S)
        if found:
            sources[path.parent.name] = found.group().strip()
    assert sources.keys() >= LAYERS.keys()
    assert set(sources.values()) == {sources["deformable_detr"]}


@ONE_OF_EACH
@torch.no_grad()
def test_without_a_kernel_the_original_runs(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(deformable_heads, "kernel_for", lambda *key: asked.append(key))
    model, inputs = build(head), inputs_of(head)
    expected = outputs_of(model, inputs)
    names = use_kernel_in_heads(model)
    assert_equal(outputs_of(model, inputs), expected)
    assert asked == [(torch.device("cpu"), torch.float32)] * len(names)


@torch.no_grad()
def test_the_choice_of_kernel_holds_for_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(grid_sample_kernel)
    monkeypatch.setattr(kernel_choice, "_kernels", {"cpu": kernel})
    model, inputs = build(ALL["lw_detr"]), inputs_of(ALL["lw_detr"])
    expected = outputs_of(model, inputs)
    names = use_kernel_in_heads(model)
    outputs_of(model, inputs)
    assert kernel.calls == len(names)
    use_deformable_attention_kernel("torch")
    assert_equal(outputs_of(model, inputs), expected)
    assert kernel.calls == len(names)


def test_the_kernel_is_loaded_before_anything_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "_kernels", None)
    use_kernel_in_heads(MultiScaleDeformableAttention())
    assert kernel_choice._kernels is not None


def test_levels_with_fewer_points_are_filled_up() -> None:
    samples = torch.arange(12.0).view(6, 2)
    first, second, third = split_levels(samples, [1, 2, 3], OUTSIDE)
    assert first.tolist() == [[0, 1], [-1, -1], [-1, -1]]
    assert second.tolist() == [[2, 3], [4, 5], [-1, -1]]
    assert torch.equal(third, samples[3:])
    assert torch.equal(split_levels(samples, [2, 2, 2], OUTSIDE), samples.view(3, 2, 2))


@ONE_OF_EACH
@torch.no_grad()
def test_models_are_independent(head: Head, stand_in: Kernel) -> None:
    switched, other, inputs = build(head), build(head), inputs_of(head)
    names = use_kernel_in_heads(switched)
    outputs_of(other, inputs)
    assert stand_in.calls == 0
    assert restore_heads(other) == []
    outputs_of(switched, inputs)
    assert stand_in.calls == len(names)


@ONE_OF_EACH
@torch.no_grad()
def test_train_eval_to_and_copies(head: Head, stand_in: Kernel) -> None:
    """A switched model stays so, and a copy runs on the kernel with weights of its own."""
    model, inputs = build(head), inputs_of(head, torch.float64)
    names = use_kernel_in_heads(model)
    twin = copy.deepcopy(model.train().eval()).to(torch.float64)
    expected = outputs_of(model.to(torch.float64), inputs)
    assert stand_in.calls == len(names)
    for parameter in model.parameters():
        parameter.zero_()
    assert_equal(outputs_of(twin, inputs), expected)
    assert stand_in.calls == 2 * len(names)
    assert restore_heads(twin) == names
    assert not switched_state(twin) and len(switched_state(model)) == len(names)


@ONE_OF_EACH
def test_pickle(head: Head) -> None:
    model = build(head)
    for module in map(model.get_submodule, use_kernel_in_heads(model)):
        # transformers' own hooks do not pickle.
        module._forward_hooks.clear()
        twin = pickle.loads(pickle.dumps(module))
        assert switched_state(twin).keys() == switched_state(module).keys() != set()
        assert "forward" not in vars(twin) or twin.forward.module is twin


@ONE_OF_EACH
@pytest.mark.parametrize("kernel", ["comer_msda"], indirect=True)
def test_compiles_in_one_graph(head: Head, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is in the graph, and out of it once it is not wanted."""
    model, calls = build(head), []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((module, args, kwargs))

    names = use_kernel_in_heads(model)
    hook = model.get_submodule(names[0]).register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        outputs_of(model, inputs_of(head))
    hook.remove()
    module, args, kwargs = calls[0]
    restore_heads(module)
    expected = module(*args, **kwargs)

    torch._dynamo.reset()
    monkeypatch.setattr(deformable_heads, "kernel_for", kernel_choice.kernel_for)
    monkeypatch.setattr(kernel_choice, "_kernels", {"cpu": kernel})
    use_kernel_in_heads(module)
    kernel.calls = 0
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    try:
        actual = compiled(*args, **kwargs)
    except torch._dynamo.exc.TorchDynamoException:
        restore_heads(module)
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.TorchDynamoException):
            compiled(*args, **kwargs)
        pytest.skip("this torch does not compile transformers' own code")
    torch.testing.assert_close(actual, expected)
    assert kernel.calls == 1
    use_deformable_attention_kernel("torch")
    torch.testing.assert_close(compiled(*args, **kwargs), expected, rtol=0, atol=0)
    monkeypatch.setattr(kernel_choice, "_kernels", {"cpu": kernel})
    restore_heads(module)
    torch.testing.assert_close(compiled(*args, **kwargs), expected, rtol=0, atol=0)
    assert kernel.calls == 1


@ONE_OF_EACH
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_low_precision_models(head: Head, autocast: bool, kernel: Kernel) -> None:
    model = build(head).to(torch.float32 if autocast else torch.bfloat16)
    inputs = inputs_of(head, model.dtype)
    names = use_kernel_in_heads(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs, gradients = run(model, inputs)
    assert kernel.calls == len(names)
    assert all(not value.isnan().any() for value in outputs.values())
    assert all(value.isfinite().all() for value in gradients.values())


SIZES, HEAD_COUNT, HEAD_DIM, QUERIES, POINTS = [(5, 7), (3, 4)], 2, 8, 6, 3


def random_samples(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Value, locations of which some lie outside, weights."""
    torch.manual_seed(0)
    tokens = sum(height * width for height, width in SIZES)
    locations = 1.4 * torch.rand(BATCH, QUERIES, HEAD_COUNT, len(SIZES), POINTS, 2) - 0.2
    weights = torch.rand(locations.shape[:-1])
    value = torch.randn(BATCH, tokens, HEAD_COUNT, HEAD_DIM)
    return tuple(tensor.to(dtype) for tensor in (value, locations, weights))


def test_bfloat16_is_rounded_once(kernel: Kernel) -> None:
    value, locations, weights = random_samples(torch.bfloat16)

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        value, locations, weights = tensors
        return layer(value, None, SIZES, None, locations, weights, 64)

    layer = MultiScaleDeformableAttention()
    exact = call(value.double(), locations.double(), weights.double())
    theirs = call(value, locations, weights)
    use_kernel_in_heads(layer)
    ours = call(value, locations, weights)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert (ours - exact).norm() / exact.norm() < 2.4e-3 < (theirs - exact).norm() / exact.norm()
    # Autocast gives values in bfloat16, and weights out of the softmax in float32.
    assert call(value, locations.float(), weights.float()).dtype == torch.bfloat16


def test_activation_checkpointing(kernel: Kernel) -> None:
    """Of these heads only the family of Deformable DETR supports it."""
    head = HEADS["deformable_detr"]._replace(fields=HEADS["deformable_detr"].fields | {"dropout": 0.0})
    model, inputs = build(head, torch.float64), inputs_of(head, torch.float64)
    names = use_kernel_in_heads(model)
    expected = run(model, inputs)
    model.activation_checkpointing_enable()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
    kernel.calls = 0
    actual = run(model, inputs)
    assert kernel.calls == 2 * len(names)
    assert_close(actual, expected, *TOLERANCES[torch.float64])


def test_discrete_sampling_is_not_switched() -> None:
    head = detector("RTDetrV2", RT_DETR | {"decoder_method": "discrete"})
    model = build(head)
    with pytest.raises(ValueError, match="discrete"):
        use_kernel_in_heads(model)
    assert not switched_state(model)


def test_discrete_sampling_falls_back(stand_in: Kernel) -> None:
    """For a model whose method is changed after it was switched."""
    head = HEADS["rt_detr_v2"]
    model, inputs = build(head), inputs_of(head)
    names = use_kernel_in_heads(model)
    expected = build(head)
    for each in (model, expected):
        for name in names:
            each.get_submodule(name).method = "discrete"
    with torch.no_grad():
        assert_equal(outputs_of(model, inputs), outputs_of(expected, inputs))
    assert stand_in.calls == 0
    assert restore_heads(model) == names


@pytest.mark.parametrize(
    "build_model", [HEADS["upernet"].build, HEADS["detr"].build, lambda: ViTCoMerBackbone(tiny_config())]
)
def test_a_model_without_such_heads_is_refused(build_model: Callable[[], nn.Module]) -> None:
    model = build_model()
    with pytest.raises(ValueError, match=f"^{type(model).__name__} has no deformable attention to switch. Known are"):
        use_kernel_in_heads(model)
    assert restore_heads(model) == []


def test_a_forward_that_somebody_replaced_is_refused() -> None:
    model = build(HEADS["deformable_detr"])
    module = model.model.decoder.layers[1].encoder_attn.attn
    module.forward = replaced = partial(type(module).forward, module)
    with pytest.raises(ValueError, match=r"forward of 'model.decoder.layers.1.encoder_attn.attn' .* already replaced"):
        use_kernel_in_heads(model)
    assert list(switched_state(model).values()) == [replaced]
    assert restore_heads(model) == []
    assert module.forward is replaced


def test_hooks_of_others_do_not_hinder_an_attribute(stand_in: Kernel) -> None:
    model, inputs = build(HEADS["d_fine"]), inputs_of(HEADS["d_fine"])
    module = model.model.decoder.layers[0].encoder_attn
    module.forward = replaced = partial(type(module).forward, module)
    names = use_kernel_in_heads(model)
    outputs_of(model, inputs)
    assert stand_in.calls == len(names)
    assert restore_heads(model) == names
    assert list(switched_state(model).values()) == [replaced]
