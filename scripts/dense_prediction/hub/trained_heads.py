"""The trained heads that have a card: `hub_cards/heads.yaml`, their result files, and their models."""

import dataclasses
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel

from ..errors import UserError
from ..evaluation.tasks import find_task
from ..models.backbones import build_backbone
from ..models.building import build_model
from ..models.heads import find_head
from ..recipes.loading import load_recipe
from ..recipes.schema import Recipe
from .cards.card import CARDS, Dataset
from .result_files import Result, read_result


RESULTS = "results"
"""Where the result files are, beside the cards."""

Files = Annotated[list[str], Field(min_length=1)]
_FORBID_UNKNOWN = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class Baseline:
    """What a card compares with, trained and measured alike."""

    name: str
    runs: Files
    tests: list[str] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class TrainedHead:
    """An entry of heads.yaml, which says what each field is."""

    runs: Files
    licence: str
    dataset: Dataset
    tests: list[str] = Field(default_factory=list)
    arguments: list[str] = Field(default_factory=list)
    trunk: str | None = None
    trunk_note: str = ""
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _check_tests(self) -> Self:
        measured: list[TrainedHead | Baseline] = [self, self.baseline] if self.baseline else [self]
        if any(len(each.tests) != (len(each.runs) if self.tests else 0) for each in measured):
            raise ValueError("tests must be as many as runs, for all or for none")
        return self


def read_heads(path: Path = CARDS / "heads.yaml") -> dict[str, TrainedHead]:
    """The entries by the names of their cards.

    Raises:
        UserError: an entry has an unknown field, lacks one, or has a wrong value.
    """
    try:
        return TypeAdapter(dict[str, TrainedHead]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise UserError(f"{path.name}: {'; '.join(faults)}") from error


def read_results(files: list[str]) -> dict[str, Result]:
    """Results by the paths that a card links to, all of one recipe.

    Raises:
        UserError: a file cannot be read, or they are of several recipes or splits.
    """
    results = {f"{RESULTS}/{file}": read_result(CARDS / RESULTS / file) for file in files}
    kinds = {(result.name, result.split) for result in results.values()}
    if len(kinds) > 1:
        raise UserError(
            f"one card needs results of one recipe on one split, got {sorted(kinds)} from {', '.join(files)}"
        )
    return results


def recipe_of(result: Result) -> Recipe:
    """The recipe as the repository has it, whose models have the same parts.

    Raises:
        UserError: there is no such recipe.
    """
    return load_recipe(result.name)


def build_head(result: Result) -> PreTrainedModel:
    """The model that was trained, with random weights."""
    recipe = recipe_of(result)
    backbone_recipe = dataclasses.replace(recipe.backbone, trunk_weights=None)
    backbone = build_backbone(backbone_recipe, find_head(recipe.head.name).out_features)
    return build_model(recipe.head, backbone, result.classes, find_task(recipe.task))
