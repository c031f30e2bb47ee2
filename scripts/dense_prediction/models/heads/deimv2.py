"""DEIMv2: D-FINE with denser matches and a loss that weighs them by their quality.

The terms of the boxes are divided by the matches of all layers together, which only the model's predictions tell.
Where a step has several passes, each is therefore run once more before, without gradients, to count them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import Deimv2ForObjectDetection, PreTrainedConfig
from transformers.loss.loss_deimv2 import Deimv2Loss

from modeling_vit_comer.heads import supported_head

from ...batches.loss_counts import Counts, Method, wrapped
from ...batches.types import Batch
from ..boxes import count_boxes
from ..head import Head
from ..real_time import REAL_TIME
from .d_fine import Pairs, dividing_distributions


def count(batch: Batch, config: PreTrainedConfig) -> Counts:
    counts = count_boxes(batch, config)
    return replace(counts, matches=None) if config.use_dense_one_to_one else counts


@contextmanager
def record_matches() -> Iterator[list[int]]:
    """Those of all layers together, of each pass with a loss."""
    found: list[int] = []

    def recording(find_union: Method) -> Method:
        def recorded(self: Any, pairs: Pairs, of_layers: list[Pairs]) -> Pairs:
            union = find_union(self, pairs, of_layers)
            found.append(_count_pairs(union))
            return union

        return recorded

    with wrapped(Deimv2Loss, _get_dense_o2o_indices=recording):
        yield found


@contextmanager
def divide(own: Counts, mean: Counts) -> Iterator[float]:
    """Terms that are computed from the matches of all layers by these, the others by the objects."""
    unions: list[tuple[Pairs, Counts, Counts]] = []

    def keeping(find_union: Method) -> Method:
        def kept(self: Any, pairs: Pairs, of_layers: list[Pairs]) -> Pairs:
            union = find_union(self, pairs, of_layers)
            matches = _count_pairs(union)
            of_all = _mean_over_processes(matches, union[0][0].device) if mean.matches is None else mean.matches
            unions.append((union, _of_matches(matches, own), _of_matches(of_all, mean)))
            return union

        return kept

    def counts_of(pairs: Pairs) -> tuple[Counts, Counts]:
        return next(((one, all_) for union, one, all_ in unions if union is pairs), (own, mean))

    with wrapped(Deimv2Loss, _get_dense_o2o_indices=keeping, get_loss=dividing_distributions(counts_of)):
        yield 1.0


def _of_matches(matches: float, counts: Counts) -> Counts:
    return Counts(matches or counts.objects, matches, counts.queries)


def _count_pairs(pairs: Pairs) -> int:
    return sum(len(queries) for queries, _ in pairs)


def _mean_over_processes(matches: int, device: torch.device) -> float:
    return reduce(torch.tensor(float(matches), device=device), "mean").item()


HEAD = Head(
    entry=supported_head(Deimv2ForObjectDetection),
    **REAL_TIME | {"count": count, "divide": divide, "record_matches": record_matches},
)
