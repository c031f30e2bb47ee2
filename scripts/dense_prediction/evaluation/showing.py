"""A page of image | truth | prediction, with which a run is watched."""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from transformers import PreTrainedModel

from ..batches.streams import EvaluationSet, collate
from ..batches.types import names_of
from ..data.samples import Sample, Split
from ..drawing.pages import comparison
from ..errors import named
from .views import Viewer


ROWS = 4


@torch.no_grad()
def draw_predictions(
    model: PreTrainedModel, viewer: Viewer, samples: EvaluationSet, labels: Sequence[str], size_divisor: int
) -> Image.Image | None:
    """What the model sees in samples from all over the split that is measured; None if none is good.

    Args:
        labels: class names in the order of their ids.
        size_divisor: images are padded to multiples of it.
    """
    was_training = model.training
    model.eval()
    rows = []
    for sample in spread_samples(samples.split, ROWS):
        batch = collate([samples.transform(sample)], size_divisor)
        batch |= {name: batch[name].to(model.device) for name in ("pixel_values", "pixel_mask")}
        with named(names_of(batch)):
            (prediction,) = viewer.glance(model, batch)
        rows.append((to_pil_image(sample["image"]), sample, prediction))
    model.train(was_training)
    task = viewer.task
    return comparison(rows, labels, task.draw_beside or task.draw) if rows else None


def spread_samples(split: Split, number: int) -> Iterator[Sample]:
    """The first good sample of each of `number` equal parts, because neighbours are often frames of one scene."""
    bounds = [len(split) * part // number for part in range(number + 1)]
    for start, end in pairwise(bounds):
        yield from islice(filter(None, (split[index] for index in range(start, end))), 1)
