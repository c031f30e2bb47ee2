"""A run's data, model and plan in words, as rows of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from modeling_vit_comer.deformable_attention import deformable_attention_backend

from ..data.inspection.looking import Facts
from ..models.building import encoder_of
from ..recipes.schema import Recipe
from .survey import Survey


Rows = list[list[str]]
"""The first is the heading."""

PRECISIONS = {"no": "float32", "bf16": "bfloat16 where it is safe (autocast)", "fp16": "float16 where it is safe"}


@dataclass(frozen=True)
class Looked:
    """What is known of one split.

    Attributes:
        name: "train" or "validation".
        pictures: how many it has; None of a stream.
        facts: what is annotated, where that can be told without the pictures.
        survey: what some of its pictures are like, where they can be read in any order.
    """

    name: str
    pictures: int | None
    facts: Facts | None
    survey: Survey | None

    @property
    def counts_pixels(self) -> bool:
        return self.facts is not None and self.facts.unit == "pixels"

    def by_class(self, labels: Sequence[str]) -> list[int] | None:
        """Objects or pixels of each class, in the order of their ids, in all that was looked at."""
        if self.facts is not None:
            return [self.facts.by_class[label] for label in labels]
        if self.survey is not None:
            return [self.survey.by_class[place] for place in range(len(labels))]
        return None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does, as its trainer knows it.

    Attributes:
        steps: of the whole run.
        samples_per_step: of all processes together.
        device: its name.
    """

    steps: int
    samples_per_step: int
    processes: int
    device: str


def class_rows(splits: Sequence[Looked], labels: Sequence[str]) -> Rows:
    """How much of each class every split has: objects or segments, or the share of all labelled pixels."""
    known = [(split, counts) for split in splits if (counts := split.by_class(labels)) is not None]
    columns = [
        _shares(counts) if split.counts_pixels else [f"{count:,}" for count in counts] for split, counts in known
    ]
    heading = ["class", *(f"{split.name}{_unit(split)}" for split, _ in known)]
    return [heading, *map(list, zip(labels, *columns, strict=True))] if known else []


def most_frequent(rows: Rows, splits: Sequence[Looked], labels: Sequence[str], most: int) -> Rows:
    """Of `class_rows` those of the classes that the first split with any has most of; all if they are few."""
    counts = next(counts for split in splits if (counts := split.by_class(labels)) is not None)
    if len(labels) <= most:
        return rows
    return [rows[0], *(rows[1 + place] for place in sorted(range(len(labels)), key=lambda at: -counts[at])[:most])]


def split_rows(splits: Sequence[Looked]) -> Rows:
    """What there is to say of all splits, a column for each."""
    columns = [_described(split) for split in splits]
    names = dict.fromkeys(name for column in columns for name in column)
    return [["", *(split.name for split in splits)], *([name, *(c.get(name, "") for c in columns)] for name in names)]


def in_words(split: Looked) -> str:
    """A split in a line."""
    described = {name: text for name, text in _described(split).items() if name not in _ONLY_ON_THE_PAGE}
    return ", ".join(
        [f"{described.pop('pictures')} pictures", *(f"{name} {text}" for name, text in described.items())]
    )


_ONLY_ON_THE_PAGE = ("annotations looked at", "pictures read")


def _described(split: Looked) -> dict[str, str]:
    described = {"pictures": "a stream of" if split.pictures is None else f"{split.pictures:,}"}
    if (facts := split.facts) is not None:
        described["annotations looked at"] = "all" if facts.is_whole else f"of {facts.looked_at:,} pictures"
        if facts.unit == "objects":
            described["objects"] = f"{facts.total:,}"
            described["most in a picture"] = str(facts.most)
        else:
            described["void"] = f"{facts.void_share:.1%}"
        if facts.crowds:
            described["crowds"] = f"{facts.crowds:,}"
        if facts.left_out:
            described["left out"] = f"{sum(facts.left_out.values()):,} objects of {', '.join(facts.left_out)}"
        if facts.bad:
            described["bad samples"] = f"{facts.bad:,}"
    return described | ({} if split.survey is None else _described_pictures(split.survey))


def _described_pictures(found: Survey) -> dict[str, str]:
    described = {"pictures read": f"{found.looked_at:,}"}
    if not found.looked_at:
        return described
    described["height x width"] = sizes(found)
    if found.sides:
        low, middle, high = np.quantile(found.sides, [0, 0.5, 1])
        described["sides of objects"] = f"{low:.0f} to {high:.0f} pixels (median {middle:.0f})"
    if (levels := found.intensities) is not None:
        low, first, last, high = levels
        described["brightness"] = f"{first} to {last} ({low} to {high} in all)"
    return described


def sizes(found: Survey) -> str:
    """The heights and widths of pictures: the smallest, the largest and the most frequent one."""
    ordered = sorted(found.sizes, key=lambda size: size[0] * size[1])
    small, large, usual = (f"{h} x {w}" for h, w in (ordered[0], ordered[-1], found.sizes.most_common(1)[0][0]))
    return small if small == large else f"{small} to {large} (most often {usual})"


def parameter_rows(model: PreTrainedModel) -> Rows:
    """How many parameters each part of a model has, and how many of them are trained."""
    encoder = encoder_of(model)
    trunk = getattr(encoder, "trunk", None)
    inside = _count(trunk) if isinstance(trunk, nn.Module) else (0, 0)
    backbone, whole = _count(encoder), _count(model)
    parts = {
        "trunk (plain ViT)": inside,
        "backbone round the trunk": _without(backbone, inside),
        "head": _without(whole, backbone),
        "all": whole,
    }
    rows = [
        [name, *(f"{number:,}" for number in (total, trained, total - trained))]
        for name, (total, trained) in parts.items()
    ]
    return [["part", "parameters", "trained", "frozen"], *rows]


def plan_rows(recipe: Recipe, plan: Plan) -> Rows:
    """Where and how a run computes, and how long it is."""
    training = recipe.training
    optional = {"stops early": f"after {training.early_stopping} evaluations without a better model"}
    words = {
        "kind of head": recipe.head.name,
        "device": plan.device + (f", {plan.processes} processes" if plan.processes > 1 else ""),
        "precision": PRECISIONS[training.mixed_precision],
        "deformable attention": attention(),
        "steps": f"{plan.steps:,} of {plan.samples_per_step} pictures each",
        "evaluations": f"{-(-plan.steps // training.evaluate_every):,}, every {training.evaluate_every:,} steps",
        "seed": str(recipe.seed),
    } | (optional if training.early_stopping else {})
    return [["", ""], *([name, text] for name, text in words.items())]


def attention() -> str:
    """What computes the deformable attention."""
    backend = deformable_attention_backend()
    return "pure PyTorch (make kernel builds the native one)" if backend == "torch" else f"native kernel {backend}"


def millions(number: int) -> str:
    return f"{number / 1e6:.1f} M"


def counted(model: PreTrainedModel) -> Mapping[str, int]:
    """All of a model's parameters, and those that are trained."""
    return dict(zip(("all", "trained"), _count(model), strict=True))


def _count(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad)


def _without(whole: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
    return whole[0] - part[0], whole[1] - part[1]


def _shares(counts: Sequence[int]) -> list[str]:
    total = max(sum(counts), 1)
    return [f"{100 * count / total:.2f} %" if count else "0" for count in counts]


def _unit(split: Looked) -> str:
    if split.counts_pixels:
        return ", share of pixels"
    return "" if split.facts is not None else f", in {split.survey.looked_at if split.survey else 0} pictures"
