"""A page of image | truth | prediction, with which a run is watched."""

import math
from collections.abc import Iterator
from itertools import islice, pairwise

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from transformers import PreTrainedModel

from ..batches.streams import EvaluationSet, collate
from ..batches.types import PredictionOptions, Task
from ..data.loading import Data
from ..data.samples import Sample, Split
from ..drawing.pages import comparison
from ..models.head import Head
from .tasks import TASKS


ROWS = 4


@torch.no_grad()
def draw_predictions(
    model: PreTrainedModel, head: Head, validation: EvaluationSet, data: Data, task: Task, size_divisor: int
) -> Image.Image | None:
    """What the model sees in samples from all over the split that is measured; None if none is good."""
    options = PredictionOptions(things=frozenset(data.things))
    divisor = math.lcm(size_divisor, head.size_divisor)
    was_training = model.training
    model.eval()
    rows = []
    for sample in spread_samples(validation.split, ROWS):
        batch = collate([validation.transform(sample)], divisor)
        batch |= {name: batch[name].to(model.device) for name in ("pixel_values", "pixel_mask")}
        (prediction,) = head.predict(model(**head.model_inputs(batch)), batch, TASKS[task], options)
        rows.append((to_pil_image(sample["image"]), sample, prediction))
    model.train(was_training)
    return comparison(rows, data.labels) if rows else None


def spread_samples(split: Split, number: int) -> Iterator[Sample]:
    """The first good sample of each of `number` equal parts, because neighbours are often frames of one scene."""
    bounds = [len(split) * part // number for part in range(number + 1)]
    for start, end in pairwise(bounds):
        yield from islice(filter(None, (split[index] for index in range(start, end))), 1)
