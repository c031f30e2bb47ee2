"""Who hooks, replaces, shards or moves a module relies on its call, and on its output staying as it was."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from families import REPRESENTATIVES, TIMM, TRANSFORMERS, build, images, loss_of, maps
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.presets import preset_names
from modeling_vit_comer.watchers import is_plain


ALL_FAMILIES = [*TIMM, *(f"hf {name}" for name in TRANSFORMERS)]
WINDOWS = {"window_sizes": [2, 0], "use_prefix_tokens": False, "residual_block_indexes": [1]}


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# Hooks


class Watcher:
    """What modules returned, and what it was then."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        self.called: set[str] = set()
        self.handles = [module.register_forward_hook(self.hook(name)) for name, module in modules.items()]

    def hook(self, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            self.called.add(name)
            self.seen += [(name, tensor, tensor.detach().clone()) for tensor in tensors_in(output)]

        return keep

    @property
    def changed(self) -> set[str]:
        return {name for name, output, then in self.seen if not torch.equal(output, then)}


def tensors_in(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from tensors_in(part)


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """The modules with weights of their own, and all of ours that compute with those of others."""
    is_ours = {name for name, module in model.named_modules() if type(module).__module__.startswith("modeling_vit_")}
    return {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=name in is_ours))
    }


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "name, fields", [*((name, {}) for name in ALL_FAMILIES), ("augreg", WINDOWS), ("beit", WINDOWS)]
)
def test_every_module_is_called(name: str, fields: dict[str, Any], training: bool) -> None:
    model = build(name, **fields).train(training)
    torch.manual_seed(0)  # DINOv3's positions in training are random
    expected = deepcopy(model)(images(64, 96)).feature_maps
    watcher = Watcher(dict(model.named_modules()))
    torch.manual_seed(0)
    assert_close(model(images(64, 96)).feature_maps, expected)
    assert len(owners(model)) > 70 and not owners(model).keys() - watcher.called
    assert not watcher.changed


@pytest.mark.usefixtures("implementation")
def test_a_module_watched_alone() -> None:
    """Each shortcut is given up for one watcher, whichever layer it looks at."""
    model = build()
    expected = maps(model)
    for name, module in owners(model).items():
        watcher = Watcher({name: module})
        assert_close(maps(model), expected)
        assert watcher.called and not watcher.changed, name
        watcher.handles[0].remove()


@pytest.mark.parametrize("name", preset_names())
def test_presets(name: str) -> None:
    """Without memory, and so without values."""
    with torch.device("meta"), torch.no_grad():
        model = ViTCoMerBackbone(ViTCoMerConfig.from_preset(name)).eval()
        called: set[nn.Module] = set()
        for module in model.modules():
            module.register_forward_hook(lambda module, *_: called.add(module))
        model(torch.empty(1, 3, 64, 64))
    assert not {path for path, module in owners(model).items() if module not in called}


def test_backward_hooks() -> None:
    """torch refuses them on a module whose output is then overwritten."""
    model, called = build().train(), set()
    for name, module in owners(model).items():
        module.register_full_backward_hook(lambda *_, name=name: called.add(name))
    loss_of(model).backward()
    # Of the rest no input, but only weights, has a gradient.
    assert called >= {name for name in owners(model) if name.startswith(("stages.", "extra_ctis.", "norm."))}


def test_hooks_on_all_modules() -> None:
    """As torch's counters and profilers set them: no module has them, and all are watched."""
    model, kept = build(), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: kept.append((module, output, output.clone())) if torch.is_tensor(output) else None
    )
    try:
        assert not is_plain(nn.Linear(2, 2))
        maps(model)
    finally:
        handle.remove()
    assert is_plain(nn.Linear(2, 2))
    assert set(owners(model).values()) - {module for module, *_ in kept} <= set(model.modules())
    assert {module for module, *_ in kept} >= {model.get_submodule("stages.0.cti_to_vit.conv_ffn.ffn.fc2")}
    assert all(torch.equal(output, then) for _, output, then in kept)


# Layers that are others


class Wrapper(nn.Module):
    """A layer inside another module, which has no weight."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.calls = layer, 0

    def forward(self, *args: Any) -> torch.Tensor:
        self.calls += 1
        return self.layer(*args)


def replace(model: nn.Module, kinds: tuple[type, ...], wrap: Callable[[nn.Module], nn.Module]) -> list[nn.Module]:
    """Put a new module in place of each layer of these kinds."""
    places = [(parent, name, layer) for parent in model.modules() for name, layer in parent.named_children()]
    new = []
    for parent, name, layer in places:
        if type(layer) in kinds:
            new.append(wrap(layer))
            setattr(parent, name, new[-1])
    return new


LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm, nn.ReLU, nn.GELU)


@pytest.mark.parametrize("name", ["augreg", "eva", "beit", "parallel branches", "hf beit", "dinov2", "dinov3_vit"])
def test_wrapped_layers(name: str) -> None:
    model = build(name)
    expected = maps(model)
    wrappers = replace(model, LAYERS, Wrapper)
    assert_close(maps(model), expected)
    assert len(wrappers) > 90 and all(wrapper.calls for wrapper in wrappers)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["eva", "beit"])
def test_a_wrapped_qkv_whose_biases_are_elsewhere(name: str, compiled: bool) -> None:
    """timm uses its weight without the layer: an adapter there would learn nothing, and nobody would know."""
    model = build(name, use_cti_to_cnn=False, use_cti_to_vit=False)
    nn.init.normal_(model.trunk.layers[0].block.attn.q_bias)
    expected = maps(model)
    attention = model.trunk.layers[0].block.attn
    attention.qkv = nn.Sequential(attention.qkv, nn.Identity())
    torch._dynamo.reset()
    forward = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
    assert_close(maps(forward), expected)
    nn.init.normal_(attention.qkv[0].weight)
    assert not torch.allclose(maps(forward)[0], expected[0], atol=1e-3)


def test_layers_left_out() -> None:
    """As in an ablation: what comes out of an identity is somebody else's, and is not overwritten."""
    model = build()
    for stage in model.stages:
        stage.cti_to_vit.conv_ffn.ffn, stage.cti_to_vit.conv_ffn.norm = Pass(), nn.Identity()
        watcher = Watcher({"attention": stage.cti_to_vit.attention})
        maps(model)
        assert watcher.seen and not watcher.changed
    model.spatial_pyramid.stem[0].activation = nn.GELU()
    expected = nn.functional.gelu(torch.tensor(-1.0))
    layer = model.spatial_pyramid.stem[0]
    layer.conv, layer.norm = nn.Identity(), nn.Identity()
    assert torch.equal(layer(torch.tensor(-1.0)), expected)


class Pass(nn.Module):
    def forward(self, pyramid: torch.Tensor, *_: Any) -> torch.Tensor:
        return pyramid


class DoubledWeight(torch.Tensor):
    """A weight that is more than its numbers, as a quantised one."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        return (2 * result).as_subclass(torch.Tensor) if function is nn.functional.linear else result


def test_weights_of_another_kind() -> None:
    model = build()
    attention = model.stages[0].cti_to_vit.attention.deform_attention
    query = torch.randn(1, 84, 32)
    offsets = attention.sampling_offsets(query)
    attention.sampling_offsets.weight = nn.Parameter(attention.sampling_offsets.weight.data.as_subclass(DoubledWeight))
    assert not is_plain(attention)
    assert_close(attention.sampling_projection(query)[..., : offsets.shape[-1]], 2 * offsets)


def test_offsets_without_a_bias() -> None:
    attention = build().stages[0].cti_to_vit.attention.deform_attention
    attention.sampling_offsets = nn.Linear(32, attention.sampling_offsets.out_features, bias=False)
    assert attention.sampling_projection(torch.randn(1, 84, 32)).shape == (1, 84, 2 * 3 * 2 * 3)


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear]


PARAMETRIZATIONS = nn.utils.parametrizations


@pytest.mark.parametrize("name", ["augreg", "beit", "dinov3_vit"])
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrizations(name: str, kind: str) -> None:
    model = build(name)
    expected, layers = maps(model), linear_layers(model)
    for layer in layers:
        getattr(PARAMETRIZATIONS, kind)(layer)
    assert torch.allclose(maps(model)[0], expected[0], rtol=1e-4, atol=1e-4) == (kind == "weight_norm")
    loss_of(model.train()).backward()
    weights = {path: weight for path, weight in model.named_parameters() if ".parametrizations." in path}
    assert len(weights) >= len(layers) and all(weight.grad is not None for weight in weights.values())


def test_pruning() -> None:
    model = build("beit")
    for layer in linear_layers(model):
        nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    pruned = maps(model)
    for layer in linear_layers(model):
        nn.utils.prune.remove(layer, "weight")
    assert_close(maps(model), pruned)


@pytest.mark.parametrize("name", ["augreg", "eva", "beit", "hf beit"])
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
def test_dynamic_quantisation(name: str) -> None:
    model = build(name)
    expected, count = maps(model), len(linear_layers(model))
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert not linear_layers(quantised) and count > 20
    for actual, float_map in zip(maps(quantised), expected, strict=True):
        assert 0 < (actual - float_map).norm() / float_map.norm() < 0.2


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_other_weights_for_one_call(name: str) -> None:
    """`torch.func.functional_call` puts tensors in place of all parameters and buffers."""
    model = build(name)
    weights = dict([*model.named_parameters(), *model.named_buffers()])
    others = {path: value.detach() * 1.1 if value.is_floating_point() else value for path, value in weights.items()}
    with torch.no_grad():
        actual = torch.func.functional_call(model, others, (images(64, 96),)).feature_maps
        for path, value in weights.items():
            value.copy_(others[path])
    assert_close(actual, maps(model))


def test_shared_weights() -> None:
    model = build()
    first, second = (stage.cti_to_vit.attention.deform_attention for stage in model.stages)
    second.sampling_offsets.weight = first.sampling_offsets.weight
    model.stages[1].mrfp = model.stages[0].mrfp
    expected = maps(model)
    copy = deepcopy(model)
    assert copy.stages[1].mrfp is copy.stages[0].mrfp
    assert_close(maps(copy), expected)


# Inputs that get a gradient


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_input_gradients_reach_adapters(name: str, use_reentrant: bool) -> None:
    """All is frozen but what was added inside a block: re-entrant checkpointing needs an input with a gradient."""
    model = build(name).train().requires_grad_(False)
    adapters = replace(model.trunk, (nn.Linear,), lambda layer: nn.Sequential(layer, nn.LayerNorm(layer.out_features)))
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    loss_of(model).backward()
    assert len(adapters) >= 8 and all(adapter[1].weight.grad.any() for adapter in adapters)
