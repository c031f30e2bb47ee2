"""A trained model from its folder, and what it sees in one image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

import modeling_vit_comer  # noqa: F401, registers ViT-CoMer with AutoConfig and AutoBackbone

from .errors import UserError
from .heads import HEADS, head_of, semantic_map


def load_model(folder: Path, device: torch.device) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The model and the image processor that `train.py` saved in `folder`, ready to predict on `device`.

    Raises:
        UserError: the folder holds no such model, or its files are damaged.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder: it has no config.json (train.py writes OUTPUT/best_model)")
    try:
        config = AutoConfig.from_pretrained(folder)
        model_class = _model_class(folder, config.architectures or [])
        model = model_class.from_pretrained(folder, config=config).to(device).eval()
        return model, AutoImageProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot load the model in {folder}: {' '.join(str(error).split())}") from error


@torch.inference_mode()
def predict_map(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> np.ndarray:
    """Class ids (H, W) of an RGB image, at its own size."""
    pixel_values = processor(images=image, return_tensors="pt")["pixel_values"].to(model.device)
    scores = head_of(model).scores(model(pixel_values=pixel_values))
    return semantic_map(scores, (image.height, image.width))[0].cpu().numpy()


def _model_class(folder: Path, architectures: list[str]) -> type[PreTrainedModel]:
    supported = {head.model_class.__name__: head.model_class for head in HEADS.values()}
    for name in architectures:
        if name in supported:
            return supported[name]
    raise UserError(f"{folder} holds {architectures}; supported are {', '.join(supported)}")
