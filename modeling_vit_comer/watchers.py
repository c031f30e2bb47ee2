"""Whether a layer is what it was built as, and nobody looks: only then may its call be saved or its output reused."""

from timm.layers import DropPath
from torch import nn
from torch.nn.modules.module import _has_any_global_hook


OUR_CLASSES = f"{__name__.rpartition('.')[0]}."
"""How the names of the files begin that define our layers."""

KNOWN_LAYERS = (
    nn.Linear,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.LayerNorm,
    nn.SyncBatchNorm,
    nn.GELU,
    nn.ReLU,
    nn.ModuleList,
    DropPath,
)
"""What ours are built of: their outputs are new tensors, but for a drop path that drops nothing."""


def is_plain(module: nn.Module) -> bool:
    """Whether a shortcut round a module, or round one inside it, is the same as calling it, for everybody.

    A shortcut uses weights without their layer's call, or overwrites what a layer has returned. Hooks see that, and so
    do adapters, quantisation, parametrizations, offloading and sharding, which replace a layer, its class, its
    `forward` or its weights.
    """
    return not _has_any_global_hook() and all(is_as_built(inner) for inner in module.modules())


def is_as_built(layer: nn.Module) -> bool:
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    is_known = type(layer) in KNOWN_LAYERS or type(layer).__module__.startswith(OUR_CLASSES)
    if not is_known or any(hooks) or "forward" in vars(layer):
        return False
    return all(type(weight) is nn.Parameter for weight in layer.parameters(recurse=False))
