"""A page of image | truth | prediction, with which a run is watched."""

import math
from itertools import islice

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from transformers import PreTrainedModel

from .data import Data
from .drawing import comparison
from .heads import Head, PredictionOptions, Task
from .loading import EvaluationSet, collate


ROWS = 4


@torch.no_grad()
def draw_predictions(
    model: PreTrainedModel, head: Head, validation: EvaluationSet, data: Data, task: Task, size_divisor: int
) -> Image.Image | None:
    """What the model sees in the first good samples of the split that is measured; None if there are none."""
    options = PredictionOptions(things=frozenset(data.things))
    divisor = math.lcm(size_divisor, head.size_divisor)
    was_training = model.training
    model.eval()
    rows = []
    samples = (validation.split[index] for index in range(len(validation)))
    for sample in islice(filter(None, samples), ROWS):
        batch = collate([validation.transform(sample)], divisor)
        batch |= {name: batch[name].to(model.device) for name in ("pixel_values", "pixel_mask")}
        (prediction,) = head.predict(model(**head.model_inputs(batch)), batch, task, options)
        rows.append((to_pil_image(sample["image"]), sample, prediction))
    model.train(was_training)
    return comparison(rows, data.labels) if rows else None
