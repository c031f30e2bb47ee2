"""Where a pretrained trunk comes from: a name, a folder, a file of weights, a config or a model already built."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .configuration_vit_comer import ViTCoMerConfig
from .timm_layers import TimmViT
from .timm_trunks import TIMM_TRUNKS
from .transformers_trunks import TRANSFORMERS_TRUNKS, TransformersTrunk
from .trunk import SUPPORTED_TRUNKS, TIMM, build_trunk, channels_of
from .trunk_parts import shorten
from .trunk_shapes import plain_vit_config


TIMM_PREFIX = "timm/"
WEIGHTS_SUFFIX = ".safetensors"

Weights = Mapping[str, torch.Tensor]


class TrunkSource(NamedTuple):
    """A trunk that was found: its config, and its weights or what its library reads them by."""

    trunk_config: dict[str, Any] | PreTrainedConfig
    name: str | None = None
    """A name of timm (with "hf-hub:" or "local-dir:" where it is none of its own), or a name or folder of
    transformers."""
    file: Path | None = None
    """Of weights that come without a config."""
    weights: Weights | None = None
    """Of a model that is built already."""
    num_channels: int = 3
    """Of the images, where the source says so."""

    @property
    def has_weights(self) -> bool:
        return (self.name, self.file, self.weights) != (None, None, None)


def find_trunk(
    trunk: str | Path | dict[str, Any] | PreTrainedConfig | nn.Module,
    trunk_config: dict[str, Any] | PreTrainedConfig | None = None,
) -> TrunkSource:
    """What `trunk` means. Weights that have a name are not read or downloaded yet.

    Args:
        trunk: see `ViTCoMerBackbone.from_trunk`.
        trunk_config: what weights are that come without a config, where their shapes do not tell.

    Raises:
        OSError: a name is not found, or cannot be looked up offline.
        ValueError: it is no trunk that is supported.
        TypeError: it is none of the things that can be a trunk.
    """
    file = weights_without_config(Path(trunk)) if isinstance(trunk, str | Path) else None
    if file is not None:
        trunk_config = trunk_config or plain_vit_config(shapes_in(file))
        return TrunkSource(trunk_config, file=file, num_channels=channels_of(trunk_config))
    if trunk_config is not None:
        raise ValueError(
            "trunk_config is for a safetensors file, or a folder that holds one and no config.json, and only for "
            f"these: got trunk={str(trunk)[:200]!r} with trunk_config={trunk_config}. For example "
            'trunk_config={"architecture": "vit_small_patch16_224", "model_args": {"img_size": 592}}.'
        )
    if isinstance(trunk, str | Path):
        return find_by_name(str(trunk))
    if isinstance(trunk, dict | PreTrainedConfig):
        return TrunkSource(trunk, num_channels=channels_of(trunk))
    if isinstance(trunk, nn.Module):
        return take_model(trunk)
    raise TypeError(f"trunk must be a name, a folder, a config or a model, got {type(trunk).__name__}.")


def weights_without_config(path: Path) -> Path | None:
    """The safetensors file that `path` is, or the one in a folder without a config.json."""
    if path.is_file():
        return path
    files = sorted(path.glob(f"*{WEIGHTS_SUFFIX}")) if path.is_dir() else []
    return files[0] if len(files) == 1 and not (path / "config.json").is_file() else None


def find_by_name(name: str) -> TrunkSource:
    """A name of timm, with or without "timm/"; else a folder or a repository on the Hub, whose config.json decides."""
    bare, is_folder = name.removeprefix(TIMM_PREFIX), Path(name).is_dir()
    if not is_folder and (name.startswith(TIMM_PREFIX) or timm.is_model(bare)):
        check_timm_name(bare)
        return TrunkSource(timm_config(bare), name=bare)
    fields = read_config(name)
    if "architecture" in fields:
        source = f"{'local-dir' if is_folder else 'hf-hub'}:{name}"
        model_args = dict(fields.get("model_args") or {})
        num_channels = model_args.pop("in_chans", 3)
        trunk_config = timm_config(fields["architecture"], model_args)
        return TrunkSource(trunk_config, name=source, num_channels=num_channels)
    family = fields.get("model_type")
    if family not in TRANSFORMERS_TRUNKS:
        raise ValueError(f"The config.json of {name} has model_type {family!r}; {SUPPORTED_TRUNKS}.")
    config = AutoConfig.from_pretrained(name)
    return TrunkSource(config, name=name, num_channels=config.num_channels)


def read_config(name: str) -> dict[str, Any]:
    try:
        return PreTrainedConfig.get_config_dict(name)[0]
    except OSError as error:
        raise OSError(f"trunk {name!r} is no name of timm's, and no config.json of it can be read: {error}") from error


def timm_config(architecture: str, model_args: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"model_type": TIMM, "architecture": architecture, "model_args": model_args or {}}


def check_timm_name(name: str) -> None:
    """Refuse an architecture or a tag that timm has not, with the nearest that it has."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models() if not timm.is_model(name) else timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(name) and (not tag or timm.is_model_pretrained(name)):
        return
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_pretrained('vit_*') lists its plain ViTs."
    raise ValueError(f"timm {timm.__version__} has no model {name!r}; {hint}")


# How images are prepared


def image_statistics(
    trunk: str | Path,
    trunk_config: dict[str, Any] | PreTrainedConfig | None = None,
    num_channels: int | None = None,
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of R, G, B in 0..1 by which a trunk's images are normalised; None if nothing says.

    Args:
        trunk: a name, a folder or a file, as `ViTCoMerBackbone.from_trunk` takes it.
        num_channels: of the images, if not those of the trunk, whose values are then repeated as its patch kernels
            are, or averaged for one.

    Raises:
        OSError: a folder or a repository of transformers has no image processor.
    """
    source = find_trunk(trunk, trunk_config)
    if source.name is None:
        return None
    if isinstance(source.trunk_config, PreTrainedConfig):
        processor = AutoImageProcessor.from_pretrained(source.name)
        return fit_channels(processor.image_mean, num_channels), fit_channels(processor.image_std, num_channels)
    with torch.device("meta"):
        settings: Any = timm.create_model(source.name).pretrained_cfg
    return fit_channels(settings["mean"], num_channels), fit_channels(settings["std"], num_channels)


def fit_channels(values: Sequence[float], num_channels: int | None) -> list[float]:
    if num_channels is None or num_channels == len(values):
        return list(values)
    if num_channels == 1:
        return [sum(values) / len(values)]
    return [values[channel % len(values)] for channel in range(num_channels)]


# Models already built


def take_model(model: nn.Module) -> TrunkSource:
    """The config of a built model, and its weights, which stay its own."""
    model = getattr(model, "timm_model", model)  # inside transformers' wrapper
    if isinstance(model, PreTrainedModel):
        num_channels = getattr(model.config, "num_channels", 3)
        return TrunkSource(model.config, weights=copy_weights(model), num_channels=num_channels)
    architecture = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if architecture is None or type(model).__name__ not in TIMM_TRUNKS:
        raise ValueError(f"trunk is a {type(model).__name__}; {SUPPORTED_TRUNKS}.")
    trunk_config = timm_config(architecture, changed_sizes(model, architecture))
    num_channels = cast(TimmViT, model).patch_embed.proj.in_channels
    return TrunkSource(trunk_config, weights=copy_weights(model), num_channels=num_channels)


def copy_weights(model: nn.Module) -> Weights:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def changed_sizes(model: nn.Module, architecture: str) -> dict[str, Any]:
    """Arguments that make timm's architecture as large as a model that was built of it.

    Raises:
        ValueError: the model has other blocks than the architecture, in more than their sizes.
    """
    with torch.device("meta"):
        original = sizes_of(timm.create_model(architecture))
        sizes = {name: size for name, size in sizes_of(model).items() if size != original[name]}
        same = timm.create_model(architecture, **sizes)
    blocks = blocks_of(model)
    for name, expected in blocks_of(same).items():
        if (actual := blocks.get(name)) != expected:
            raise ValueError(
                f"trunk is a {architecture} with other arguments than sizes: its block {name} is {actual}, where the "
                f"architecture has {expected}. Give a config with all of its model_args, and load its state_dict with "
                "backbone.trunk.load_pretrained."
            )
    return sizes


def sizes_of(model: nn.Module) -> dict[str, Any]:
    vit = cast(TimmViT, model)
    patch_embed = vit.patch_embed
    grid, patch_size = patch_embed.grid_size, patch_embed.patch_size
    return {
        "img_size": [side * patch for side, patch in zip(grid, patch_size)],
        "patch_size": patch_size[0],
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": getattr(getattr(vit.blocks[0], "attn", vit.blocks[0]), "num_heads", None),
    }


def blocks_of(model: nn.Module) -> dict[str, str]:
    """What each module of the blocks is; not dropout and drop path, which a trunk sets for itself."""
    modules = cast(TimmViT, model).blocks.named_modules()
    return {
        name: f"{type(module).__name__}({module.extra_repr()})"
        for name, module in modules
        if "drop" not in name and name
    }


# Weights


def pretrained_weights(source: TrunkSource, config: ViTCoMerConfig, patch_resample: str) -> dict[str, torch.Tensor]:
    """The weights of a trunk that was found, under the names that they have in a model with this config."""
    with torch.device("meta"):
        shapes = build_trunk(config)
    weights = shapes.convert_pretrained(read_pretrained(source, config), patch_resample)
    return {f"trunk.{key}": value for key, value in weights.items()}


@contextmanager
def no_report_of_random_weights() -> Iterator[None]:
    """`from_pretrained` would warn of each weight that is not the trunk's, which nobody has asked it to load."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_pretrained(source: TrunkSource, config: ViTCoMerConfig) -> Weights:
    """The source's weights, under the names that the trunk's library has for them.

    Raises:
        OSError: they are not in the cache and cannot be downloaded.
        ValueError: there are none, or not all that the trunk has.
    """
    if source.weights is not None:
        return source.weights
    if source.file is not None:
        return read_weights(source.file)
    if source.name is None:
        raise ValueError(f"A config brings no weights: {source.trunk_config}.")
    if config.trunk_config.model_type == TIMM:
        return read_timm_weights(source.name)
    return read_transformers_weights(source.name, TRANSFORMERS_TRUNKS[config.trunk_facts.family])


def read_transformers_weights(name: str, trunk_class: type[TransformersTrunk]) -> Weights:
    model_class, arguments = trunk_class.model_class, trunk_class.model_arguments
    loaded: Any = model_class.from_pretrained(name, output_loading_info=True, **arguments)
    model, report = loaded
    if missing := [key for key in report["missing_keys"] if not key.startswith(trunk_class.unused)]:
        raise ValueError(f"{name} has no weights for {shorten(missing)} of a {model_class.__name__}: a head alone?")
    return model.state_dict()


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors, of which none is read."""
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as {WEIGHTS_SUFFIX[1:]}: {error}.") from error


def read_weights(path: Path) -> Weights:
    try:
        # Not mapped into memory: a file that is later saved over would take the model's weights with it.
        return load_file(path, backend="pread")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as {WEIGHTS_SUFFIX[1:]}: {error}.") from error


def read_timm_weights(name: str) -> Weights:
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except OSError as error:
        raise OSError(f"The weights of timm's {name} are not in the cache, and not to be had: {error}") from error
    except RuntimeError as error:
        raise ValueError(f"timm cannot load the weights of {name}: {error}") from error
    return model.state_dict()
