"""D-FINE: RT-DETR whose boxes are distributions."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DFineForObjectDetection
from transformers.loss.loss_d_fine import DFineLoss

from modeling_vit_comer.heads import supported_head

from ...batches.loss_counts import Counts, Method, share, wrapped
from ...batches.types import Tensors
from ..head import Head
from ..real_time import REAL_TIME


Pairs = list[tuple[torch.Tensor, torch.Tensor]]
"""For each image the positions of queries and of the objects that they are matched with."""


@contextmanager
def divide_d_fine(own: Counts, mean: Counts) -> Iterator[float]:
    """By the objects, and the distillation, by which a layer learns from the last one, by its queries."""
    with wrapped(DFineLoss, get_loss=dividing_distributions(lambda pairs: (own, mean))):
        yield 1.0


def dividing_distributions(counts_of: Callable[[Pairs], tuple[Counts, Counts]]) -> Callable[[Method], Method]:
    """Of `get_loss`, which computes some terms of one layer's output.

    Args:
        counts_of: the pairs that the terms are computed from -> the pass's own counts, and the mean ones.
    """

    def wrap(get_loss: Method) -> Method:
        def divided(self: Any, loss: str, outputs: Tensors, targets: Any, pairs: Pairs, num_boxes: float) -> Tensors:
            own, mean = counts_of(pairs)
            divisor = num_boxes / share(own.objects, mean.objects)
            terms = get_loss(self, loss, outputs, targets, pairs, divisor)
            if "loss_ddf" in terms and _is_counted(outputs, pairs, own):
                # The other queries weigh as much as the teacher is sure of them.
                unsure = torch.full_like(outputs["teacher_logits"], -torch.inf)
                alone = get_loss(self, loss, outputs | {"teacher_logits": unsure}, targets, pairs, divisor)["loss_ddf"]
                terms["loss_ddf"] = _divide_distillation(alone, terms["loss_ddf"] - alone, own, mean)
            return terms

        return divided

    return wrap


def _is_counted(outputs: Tensors, pairs: Pairs, own: Counts) -> bool:
    """False of noisy boxes, whose number is another one in each pass: their term is a mean over the passes."""
    batch_size, num_queries = outputs["logits"].shape[:2]
    return own.matches == sum(len(queries) for queries, _ in pairs) and own.queries == batch_size * num_queries


def _divide_distillation(matched: torch.Tensor, others: torch.Tensor, own: Counts, mean: Counts) -> torch.Tensor:
    """The term is (A / sqrt(a) + B / sqrt(b)) / (sqrt(a) + sqrt(b)): sums over `a` matched and `b` other queries."""
    (a, b), (mean_a, mean_b) = _matched_and_others(own), _matched_and_others(mean)
    return matched * _ratio(a, b, mean_a, mean_b) + others * _ratio(b, a, mean_b, mean_a)


def _matched_and_others(counts: Counts) -> tuple[float, float]:
    matches = counts.matches or 0.0
    return matches, counts.queries - matches


def _ratio(one: float, other: float, mean_one: float, mean_other: float) -> float:
    divisor = math.sqrt(mean_one) * (math.sqrt(mean_one) + math.sqrt(mean_other))
    return math.sqrt(one) * (math.sqrt(one) + math.sqrt(other)) / divisor if divisor else 1.0


HEAD = Head(entry=supported_head(DFineForObjectDetection), **REAL_TIME | {"divide": divide_d_fine})
