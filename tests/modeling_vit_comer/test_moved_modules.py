"""Models that are pickled, sharded, or spread over devices, memory and disk."""

import io
import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin, cpu_offload, dispatch_model, infer_auto_device_map
from accelerate.hooks import attach_align_device_hook_on_blocks, remove_hook_from_submodules
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch import distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from transformers import UperNetForSemanticSegmentation

from families import REPRESENTATIVES, build, images, loss_of, maps
from modeling_vit_comer import ViTCoMerBackbone


FAMILIES = ["augreg", "beit, shared bias", "rotary, one a block", "hf beit", "dinov3_vit"]


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# Copies


def by_torch(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": by_torch,
    "deepcopy": deepcopy,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("name", [*REPRESENTATIVES, "eva 02", "beit, shared bias", "dinov3_vit, gated"])
def test_copies(name: str, copy: Callable[[nn.Module], nn.Module]) -> None:
    """Also of a model that has shown its hidden states: transformers hooks its layers for that."""
    model = build(name if "gated" not in name else f"hf {name}")
    model.gradient_checkpointing_enable()
    with torch.no_grad():
        expected = model(images(64, 96), output_hidden_states=True)
    copied = copy(model)
    assert_same(maps(copied), expected.feature_maps)
    for again in (copied, model):
        with torch.no_grad():
            assert_same(again(images(64, 96), output_hidden_states=True).hidden_states, expected.hidden_states)
    assert type(copied.trunk).__name__ == type(model.trunk).__name__
    with torch.no_grad():
        next(copied.trunk.parameters()).fill_(7)
    assert not next(model.trunk.parameters()).eq(7).all()


@pytest.mark.parametrize("name", ["augreg", "beit"])
def test_copies_with_windows(name: str) -> None:
    model = build(name, window_sizes=[2, 0], use_prefix_tokens=False)
    for copy in COPIES.values():
        assert_same(maps(copy(model)), maps(model))


def test_a_head_pickles() -> None:
    model = build().attach(UperNetForSemanticSegmentation, num_labels=3).eval()
    with torch.no_grad():
        expected = model(images(64, 96)).logits
        for copy in COPIES.values():
            assert_same(copy(model)(images(64, 96)).logits, expected)


class Features(torch.utils.data.Dataset):
    """Samples that a model makes, in the processes of a loader."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.model(images(32, 32, 1)).feature_maps[0]


def test_spawned_processes() -> None:
    model = build()
    loader = DataLoader(Features(model), num_workers=1, multiprocessing_context="spawn")
    torch.testing.assert_close(next(iter(loader))[0], Features(model)[0])


# Modules that stay whole


@pytest.mark.parametrize("name", [*REPRESENTATIVES, "eva", "beit, shared bias"])
def test_what_stays_whole(name: str) -> None:
    """Each is there, is called, and is in none of the others."""
    model = build(name)
    names = set(model._no_split_modules)
    modules = {path: module for path, module in model.named_modules() if type(module).__name__ in names}
    assert {type(module).__name__ for module in modules.values()} == names
    assert {"SpatialPyramid", "MRFP", "CTIToViT", "CTIToCNN"} < names and len(names) == 6
    assert not [path for path in modules for other in modules if path.startswith(f"{other}.")]
    called: set[nn.Module] = set()
    for module in modules.values():
        module.register_forward_hook(lambda module, *_: called.add(module))
    maps(model)
    assert called == set(modules.values())


def test_only_what_is_there_stays_whole() -> None:
    names = set(build(use_cti_to_vit=False)._no_split_modules)
    assert "CTIToCNN" in names and not {"CTIToViT", "MRFP", "TimmBeitLayer"} & names


@pytest.mark.parametrize("version", [1, 2])
def test_default_wrapping_of_fsdp(version: int) -> None:
    model = build("beit")
    plugin = FullyShardedDataParallelPlugin(fsdp_version=version, auto_wrap_policy="transformer_based_wrap")
    if version == 1:
        plugin.set_auto_wrap_policy(model)
        classes = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    else:
        wraps = fsdp2_prepare_auto_wrap_policy(plugin, model)
        classes = {type(module) for module in model.modules() if wraps(module)}
    assert {wrapped.__name__ for wrapped in classes} == set(model._no_split_modules)


# Devices, memory, disk


@pytest.mark.parametrize("name", FAMILIES)
def test_offloaded_to_memory(name: str) -> None:
    model = build(name)
    expected = maps(model)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert_same(maps(model), expected)


@pytest.mark.filterwarnings("ignore:Current model requires")
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", FAMILIES)
def test_partly_on_disk(name: str, share: float, tmp_path: Path) -> None:
    model = build(name)
    expected = maps(model)
    memory = {"cpu": int(share * sum(4 * parameter.numel() for parameter in model.parameters())), "disk": 2**40}
    devices = infer_auto_device_map(model, memory, no_split_module_classes=list(model._no_split_modules))
    assert set(devices.values()) == {"cpu", "disk"}
    model = dispatch_model(model, devices, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert any(parameter.is_meta for parameter in model.parameters())
    assert_same(maps(model), expected)


def parts(model: ViTCoMerBackbone) -> list[str]:
    """Paths of the modules that stay whole, and of all others with weights or buffers."""
    whole = [path for path, module in model.named_modules() if type(module).__name__ in model._no_split_modules]
    own = [
        path
        for path, module in model.named_modules()
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    ]
    return whole + [path for path in own if not path.startswith(tuple(f"{name}." for name in whole) + tuple(whole))]


@pytest.mark.parametrize("fusion", ["last", "per_stage"])
@pytest.mark.parametrize("name", FAMILIES)
def test_parts_on_three_devices(name: str, fusion: str) -> None:
    """Tensors without memory, which no operation takes from two devices."""
    model = build(name, depths=[1, 1, 0, 0], vit_feature_fusion=fusion)
    devices = {path: torch.device("cuda", index % 3) for index, path in enumerate(parts(model))}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for path, device in devices.items():
            for module in model.get_submodule(path).modules():
                for key, parameter in module.named_parameters(recurse=False):
                    setattr(module, key, nn.Parameter(torch.empty_like(parameter, device=device)))
                for key, buffer in module.named_buffers(recurse=False):
                    setattr(module, key, torch.empty_like(buffer, device=device))
        main = devices | {"": torch.device("cuda", 0)}
        attach_align_device_hook_on_blocks(model, execution_device=main, offload=dict.fromkeys(devices, False))
        feature_maps = model(torch.empty(1, 3, 64, 96, device="cuda:0")).feature_maps
    assert [tuple(feature_map.shape[-2:]) for feature_map in feature_maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    remove_hook_from_submodules(model)


# Shards


@pytest.fixture
def one_process() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def whole_modules(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__ in model._no_split_modules]


def with_own_weights(model: nn.Module) -> list[nn.Module]:
    return [module for module in reversed(list(model.modules())) if list(module.parameters(recurse=False))]


def of_our_classes(model: nn.Module) -> list[nn.Module]:
    modules = [module for module in model.modules() if type(module).__module__.startswith("modeling_vit_comer.")]
    return [module for module in reversed(modules) if list(module.parameters())]


SHARDED: dict[str, Callable[[nn.Module], list[nn.Module]]] = {
    "what stays whole": lambda model: [*whole_modules(model), model],
    "the trunk": lambda model: [model.trunk],
    "the trunk in the model": lambda model: [model.trunk, model],
    "the stages": lambda model: list(model.stages),
    "all with weights": with_own_weights,
    "all classes of ours": of_our_classes,
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("use_reentrant", [None, False, True])
@pytest.mark.parametrize("which", SHARDED.values(), ids=SHARDED)
@pytest.mark.parametrize("name", ["augreg", "beit", "dinov3_vit"])
def test_shards(name: str, which: Callable[[nn.Module], list[nn.Module]], use_reentrant: bool | None) -> None:
    """A sharded module's weights are whole during its call alone."""
    sharded, plain = build(name), build(name)
    mesh = distributed.init_device_mesh("cpu", (1,))
    for model in (sharded, plain):
        if use_reentrant is not None:
            model.train().gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for module in which(sharded):
        fully_shard(module, mesh=mesh)
    losses = []
    for model in (sharded, plain):
        torch.manual_seed(0)  # DINOv3's positions in training are random
        losses.append(loss_of(model))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    for (path, actual), expected in zip(sharded.named_parameters(), plain.parameters(), strict=True):
        gradient = getattr(actual.grad, "full_tensor", lambda actual=actual: actual.grad)()
        torch.testing.assert_close(gradient, expected.grad, rtol=1e-3, atol=1e-5, msg=path)
