"""Trained models in folders, each with the image processor that prepares its images."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

import modeling_vit_comer  # noqa: F401, registers ViT-CoMer with AutoConfig and AutoBackbone

from ..atomic_files import replace_folder
from ..batches.options import TransformOptions
from ..data.deep_pictures import Range
from ..errors import UserError
from ..failures import NOT_TO_BE_HAD, cache_or_hub, is_unreached
from . import simple_feature_pyramid  # noqa: F401, registers the baseline
from .building import make_ready
from .head import Head
from .heads import all_heads, find_head
from .options import HeadOptions


PADDING = "padding_divisor"
"""Our own field of an image processor: height and width of the padded image are multiples of it."""

INTENSITY = "intensity"
"""Another: the numbers that are black and white in pictures of more than 8 bits, if a model has learnt from such."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def save_model(folder: Path, model: PreTrainedModel, weights: dict[str, Any], processor: BaseImageProcessor) -> None:
    """Write the model and its image processor; a model that was there before is kept until they are complete.

    Args:
        weights: of the model, whose own may be spread over processes.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=weights)
    processor.save_pretrained(partial)
    replace_folder(partial, folder)


def read_model(source: str | Path, device: torch.device) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The model and the image processor that were saved together, ready to predict on `device`.

    Args:
        source: a folder, or, as text, the name of a repository on the Hub.

    Raises:
        UserError: there is no such model, or its files are damaged.
    """
    if not _may_be_repository(source) and not (Path(source) / "config.json").is_file():
        raise UserError(f"{source} is no model folder: it has no config.json (training writes OUTPUT/best_model)")
    with cache_or_hub(source):
        try:
            config = AutoConfig.from_pretrained(source)
            model_class = _model_class(source, config.architectures or [])
            model = model_class.from_pretrained(source, config=config)
            model.to(device).eval()  # type: ignore[arg-type]  # transformers wraps `to` in a type without `self`
            make_ready(model)
            return model, AutoImageProcessor.from_pretrained(source)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = NOT_TO_BE_HAD if is_unreached(error) else " ".join(str(error).split())
            raise UserError(f"cannot load the model in {source}: {reason}") from error


def _may_be_repository(source: str | Path) -> bool:
    """Whether it can be a name on the Hub, `organisation/model`, and is no folder."""
    return isinstance(source, str) and not Path(source).exists() and _REPOSITORY.fullmatch(source) is not None


def _model_class(source: str | Path, architectures: list[str]) -> type[PreTrainedModel]:
    supported = {head.model_class.__name__: head.model_class for head in all_heads().values()}
    for name in architectures:
        if name in supported:
            return supported[name]
    raise UserError(f"{source} holds {architectures}; supported are {', '.join(supported)}")


def build_processor(
    recipe: HeadOptions, transforms: TransformOptions, intensity: Range | None = None
) -> BaseImageProcessor:
    """The resize rule, the normalisation and the padding of `transforms`' evaluation, for the head's processor."""
    fields = _resize_fields(transforms) | {
        "size_divisor": 0,  # where a processor would resize to multiples of it and change the aspect
        "do_normalize": True,  # which not every processor does by default
        "image_mean": list(transforms.image_mean),
        "image_std": list(transforms.image_std),
    }
    head = find_head(recipe.name)
    processor = head.processor_class(**fields)
    setattr(processor, PADDING, padding_divisor(head, transforms))
    if intensity is not None:
        setattr(processor, INTENSITY, list(intensity))
    return processor


def intensity_of(processor: BaseImageProcessor) -> Range | None:
    """The numbers that were black and white when a model learnt; None where its pictures had 8 bits."""
    found = getattr(processor, INTENSITY, None)
    return None if found is None else (found[0], found[1])


def padding_divisor(head: Head, transforms: TransformOptions) -> int:
    """Height and width of every batch must be multiples of it, for the head's sake and the recipe's."""
    return math.lcm(head.size_divisor, transforms.size_divisor)


def _resize_fields(transforms: TransformOptions) -> dict[str, Any]:
    match transforms.evaluation_resize:
        case "none":
            return {"do_resize": False}
        case "shortest_edge":
            size = {"shortest_edge": max(transforms.shortest_edges), "longest_edge": transforms.longest_edge}
        case "fixed":
            size = dict(zip(("height", "width"), transforms.needed_crop_size(), strict=True))
    return {"do_resize": True, "size": size}
