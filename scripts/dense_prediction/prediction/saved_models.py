"""A trained model from its folder, and what it sees in one image."""

from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

import modeling_vit_comer  # noqa: F401, registers ViT-CoMer with AutoConfig and AutoBackbone

from ..batches.streams import collate
from ..batches.types import Batch, Prediction, PredictionOptions
from ..errors import UserError
from ..evaluation.tasks import TASKS
from ..models import simple_feature_pyramid  # noqa: F401, registers the baseline
from ..models.building import make_ready, task_of
from ..models.head import Head
from ..models.heads import all_heads, head_of
from ..models.processors import PADDING


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
        make_ready(model)
        return model, AutoImageProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot load the model in {folder}: {' '.join(str(error).split())}") from error


@torch.inference_mode()
def predict_image(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, options: PredictionOptions
) -> Prediction:
    """What the model was trained to see, in an RGB image, at the image's own size."""
    head = head_of(model)
    batch = prepare_image(head, processor, image, model.device)
    (prediction,) = head.predict(model(**head.model_inputs(batch)), batch, TASKS[task_of(model)], options)
    return prediction


def prepare_image(head: Head, processor: BaseImageProcessor, image: Image.Image, device: torch.device) -> Batch:
    """A batch of one image as the processor prepares it, padded as the evaluation pads it."""
    pixel_values = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    divisor = getattr(processor, PADDING, head.size_divisor)
    batch = collate([{"pixel_values": pixel_values, "original_size": (image.height, image.width)}], divisor)
    return batch | {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}


def _model_class(folder: Path, architectures: list[str]) -> type[PreTrainedModel]:
    supported = {head.model_class.__name__: head.model_class for head in all_heads().values()}
    for name in architectures:
        if name in supported:
            return supported[name]
    raise UserError(f"{folder} holds {architectures}; supported are {', '.join(supported)}")
