"""A trained model, and what it sees in pictures."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..batches.streams import collate
from ..batches.types import Batch, Prediction, PredictionOptions
from ..data.deep_pictures import Range
from ..drawing.pages import add_legend
from ..drawing.pictures import draw
from ..errors import UserError
from ..evaluation.coco_output import describe
from ..evaluation.metrics.average_precision import MAX_DETECTIONS
from ..evaluation.tasks import find_task
from ..evaluation.views import Viewer, kept_windows
from ..failures import is_out_of_memory
from ..models.building import category_ids_of, labels_of, task_of, things_of
from ..models.head import Head
from ..models.heads import head_of
from ..models.saved_models import PADDING, intensity_of, read_model
from ..recipes.runs import model_in
from ..tasks import Task
from .image_files import read_image, to_image


_logger = logging.getLogger(__name__)

CUT = (
    "the {} best objects are kept and there may be more: raise max_detections (--max-detections on the command line), "
    "or the threshold of their scores"
)

SCORE_THRESHOLD = 0.5
"""Of boxes and instances. Panoptic segmentation has its own, which the official evaluation uses."""


@dataclass(frozen=True)
class TrainedModel:
    """A model with what prepares its images, as training saves them together.

    Attributes:
        options: how much of what it sees becomes a prediction.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    options: PredictionOptions

    @property
    def head(self) -> Head:
        return head_of(self.model)

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return find_task(task_of(self.model))

    @property
    def intensity(self) -> Range | None:
        """The numbers that are black and white in pictures of more than 8 bits, if it has learnt from such."""
        return intensity_of(self.processor)

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their ids."""
        return labels_of(self.model)

    def predict(self, image: str | Path | Image.Image | np.ndarray, name: str | None = None) -> Prediction:
        """What the model was trained to see, in one picture at its own size; `batches.types.Prediction` describes it.

        Args:
            image: a file, a picture, or an array (height, width, 3) of 8 bits in the order red, green, blue; where
                the model has learnt from pictures of more bits, also one of such numbers.
            name: what a warning calls it; by default the file, or its size.

        Raises:
            UserError: the file cannot be read, the array is no picture, or the picture is too small or too large.
        """
        picture = self.to_rgb(image)
        if isinstance(image, str | Path):
            called = str(image)
        else:
            called = f"a picture of {picture.width} x {picture.height} pixels"
        prediction = self._predict(picture)
        if self.is_cut(prediction):
            _logger.warning("%s: %s", name or called, CUT.format(self.options.max_detections))
        return prediction

    def to_rgb(self, image: str | Path | Image.Image | np.ndarray) -> Image.Image:
        """What the model is shown of a picture: 8 bits a colour, of more as many as it has learnt from.

        Args:
            image: as of `predict`.

        Raises:
            UserError: the file cannot be read, or the array is no picture.
        """
        if isinstance(image, str | Path):
            return read_image(Path(image), self.intensity)
        return to_image(image, self.intensity)

    def is_cut(self, prediction: Prediction) -> bool:
        """Whether a prediction holds as many objects as are kept, so that there may have been more."""
        return self.task.limits_detections and len(prediction["scores"]) >= self.options.max_detections

    def _predict(self, picture: Image.Image) -> Prediction:
        try:
            return predict_image(self.model, self.processor, picture, self.options)
        except ValueError as error:  # the model itself refuses the picture's size
            raise UserError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{picture.width} x {picture.height} pixels are too many for the memory; make the image smaller, or "
                "use the CPU in place of a GPU with CUDA_VISIBLE_DEVICES= in front of the command"
            ) from error

    def draw(self, image: Image.Image, prediction: Prediction, legend: str = "found") -> Image.Image:
        """The picture with a prediction drawn over it; a small one is enlarged.

        Args:
            legend: of the classes below it: those that were "found", "all", or "none".
        """
        picture = draw(image, prediction, self.labels, self.task.draw)
        return add_legend(picture, prediction, self.labels, legend)

    @property
    def category_ids(self) -> list[int]:
        """What the data call each class, in the order of their ids."""
        return category_ids_of(self.model)

    def describe(self, file: Path, prediction: Prediction, size: tuple[int, int]) -> dict[str, Any]:
        """A prediction as JSON, see `evaluation.coco_output.describe`."""
        return describe(file, prediction, self.task, self.labels, size, self.category_ids)


def load_model(
    source: str | Path,
    device: str | torch.device | None = None,
    threshold: float | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> TrainedModel:
    """See `dense_prediction.load_model`, which calls this."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, processor = read_model(model_in(source), device)
    return TrainedModel(model, processor, choose_options(model, threshold, max_detections))


def choose_options(
    model: PreTrainedModel, threshold: float | None, max_detections: int = MAX_DETECTIONS
) -> PredictionOptions:
    """What becomes a prediction; a threshold of the user's also holds for panoptic segments.

    Raises:
        UserError: nothing would.
    """
    if max_detections < 1:
        raise UserError(f"max_detections={max_detections}: keep at least one")
    kept = PredictionOptions(score_threshold=SCORE_THRESHOLD, things=things_of(model), max_detections=max_detections)
    if threshold is None:
        return kept
    return dataclasses.replace(kept, score_threshold=threshold, object_threshold=threshold)


@torch.inference_mode()
def predict_image(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, options: PredictionOptions
) -> Prediction:
    """What the model was trained to see, in an RGB image, at its own size, in windows if it was measured so."""
    head = head_of(model)
    batch = prepare_image(head, processor, image, model.device)
    viewer = Viewer(head, find_task(task_of(model)), kept_windows(processor), options)
    (prediction,) = viewer.predict(model, batch)
    return prediction


def prepare_image(head: Head, processor: BaseImageProcessor, image: Image.Image, device: torch.device) -> Batch:
    """A batch of one image as the processor prepares it, padded as the evaluation pads it."""
    pixel_values = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    divisor = getattr(processor, PADDING, head.size_divisor)
    batch = collate([{"pixel_values": pixel_values, "original_size": (image.height, image.width)}], divisor)
    return batch | {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}
