"""The card of a repository (README.md), filled in from a template and from what was measured."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ...evaluation.tasks import TASKS
from ...models.heads import all_heads
from ..backbone_facts import Facts
from ..licences import licence_metadata
from ..result_files import Result, Row, summarize


_INSTALLED = Path(__file__).parent / "files"

CARDS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[4] / "hub_cards"
"""The templates and, in a checkout, the cards and result files."""

BACKBONE_TEMPLATE, HEAD_TEMPLATE = (CARDS / "templates" / name for name in ("backbone.md", "head.md"))

PICTURE = (128, 96)
"""Width and height of the picture in a snippet: small, because a test runs it for every card."""

PIPELINES = {
    "ForSemanticSegmentation": "image-segmentation",
    "ForUniversalSegmentation": "image-segmentation",
    "ForInstanceSegmentation": "image-segmentation",
    "ForZeroShotObjectDetection": "zero-shot-object-detection",
    "ForObjectDetection": "object-detection",
}
"""The pipeline of transformers for a model's class, by the end of its name. A backbone makes features."""

CALLS = {
    "object-detection": ", threshold=0.5",
    "zero-shot-object-detection": ', candidate_labels=["a cat", "a dog"]',
}
"""What a pipeline takes beside the picture, of models that are not of a task of `evaluation.tasks`."""

COMER_BIBTEX = """\
@inproceedings{xia2024vitcomer,
  title     = {{ViT-CoMer}: Vision Transformer with Convolutional Multi-scale Feature Interaction for Dense
               Predictions},
  author    = {Xia, Chunlong and Wang, Xinliang and Lv, Feng and Hao, Xin and Shi, Yifeng},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {5493--5502},
  year      = {2024},
  note      = {arXiv:2403.07392}
}
"""


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """A family of plain ViTs: its name, a sentence on the licence of its weights, and whom to cite."""

    title: str
    licence: str
    bibtex: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a head was trained on.

    Attributes:
        name: as people call it.
        type: as the metadata have it: a dataset of the Hub, or a plain name.
        validation: name of the split that train.py measured on.
        about: what it shows.
        limits: what follows for the use of the weights.
        licence: under which the data are, in words; empty if nobody said it.
    """

    name: str
    type: str
    validation: str = "validation"
    about: str = ""
    limits: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a card's tables show: rows over the seeds, on one split, and the files that they come from.

    Attributes:
        by_class: of the first seed, see `Result.by_class`.
    """

    split: str
    rows: Sequence[Row]
    files: Sequence[str]
    seeds: Sequence[int]
    by_class: dict[str, dict[str, float | None]]

    @classmethod
    def build(cls, results: dict[str, Result], seeds: Sequence[int], validation: str = "validation") -> "Measured":
        """Of results by the files that a card links to."""
        split = next(iter(results.values())).split
        return cls(
            split=validation if split == "validation" else split,
            rows=summarize(list(results.values())),
            files=list(results),
            seeds=seeds,
            by_class=next(iter(results.values())).by_class,
        )

    @property
    def by_name(self) -> dict[str, Row]:
        return {row.name: row for row in self.rows}


def find_trunk(name: str) -> Trunk | None:
    """The family that a plain ViT belongs to, by its name."""
    families = yaml.safe_load((CARDS / "trunks.yaml").read_text(encoding="utf-8"))
    return next((Trunk(**fields) for family, fields in families.items() if family in name), None)


def pipeline_of(model_class: str) -> str | None:
    """The pipeline of transformers that runs a model, None for a backbone."""
    return next((task for ending, task in PIPELINES.items() if model_class.endswith(ending)), None)


def needs_scipy(model_class: str) -> bool:
    """Whether a model asks for scipy when it is loaded; others ask when they are trained."""
    return any(head.needs_scipy for head in all_heads().values() if head.entry.model == model_class)


def sections_of(template: Path) -> list[str]:
    """Headings of the second level, which every card from the template has."""
    lines = template.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("## ") for line in lines if line.startswith("## ")]


def backbone_card(
    *, repository: str, facts: Facts, facts_file: str, trunk: Trunk | None, licence: str, **values: Any
) -> str:
    """The card of a backbone.

    Args:
        facts: what `measure_backbone` says, which is in `facts_file`.
        licence: its name.
        values: `preset` of one without weights; `speeds` and `memories`, measured elsewhere; `result` and `dataset`.
    """
    data = card_data("image-feature-extraction", licence)
    values |= {"facts": facts, "facts_file": facts_file, "shapes": snippet_shapes(facts)}
    return fill(BACKBONE_TEMPLATE, data, repository, trunk, values)


def head_card(
    *,
    repository: str,
    model_class: str,
    task: str,
    trunk: Trunk | None,
    licence: str,
    dataset: Dataset | None,
    result: Measured | None,
    **values: Any,
) -> str:
    """The card of a trained head.

    Args:
        task: that it was trained for, as a recipe names it.
        licence: its name.
        result: the numbers of the weights; needs the dataset.
        values: `facts` of the backbone, which are in `facts_file` with the model's `parameters` and, if the head sets
            a limit to it, the `smallest_side` of an image; `run`, what train.py wrote of the training, `recipe`, the
            name of the file with all that was set, and `command` to repeat it; `baseline` to compare with, `classes`,
            `trunk_note`.
    """
    pipeline = cast(str, pipeline_of(model_class))  # None for a backbone alone
    data = card_data(pipeline, licence)
    if result is not None:
        if dataset is None:
            raise ValueError("the numbers of a card need the dataset that they were measured on, and dataset is None.")
        data.model_name = repository.rpartition("/")[2]
        data.eval_results = eval_results(result, dataset, pipeline, task)
    values |= {"model_class": model_class, "task": task.replace("_", " "), "licence": licence}
    values["needs_scipy"] = needs_scipy(model_class)
    values |= {"dataset": dataset, "result": result, "call": pipeline_arguments(task, pipeline)}
    return fill(HEAD_TEMPLATE, data, repository, trunk, values)


def card_data(pipeline: str, licence: str) -> ModelCardData:
    """The metadata by which the Hub lists a repository."""
    tags = ["vit-comer", "custom_code"]
    metadata: dict[str, Any] = licence_metadata(licence)
    return ModelCardData(library_name="transformers", pipeline_tag=pipeline, tags=tags, **metadata)


def pipeline_arguments(task: str, pipeline: str | None) -> str:
    """What a pipeline takes beside the picture, as Python has it."""
    return TASKS[task].pipeline_arguments if task in TASKS else CALLS.get(pipeline or "", "")


def eval_results(result: Measured, dataset: Dataset, pipeline: str, task: str) -> list[EvalResult]:
    """The numbers of the published weights, those of the first seed."""
    return [
        EvalResult(
            task_type=pipeline,
            task_name=task.replace("_", " "),
            dataset_type=dataset.type,
            dataset_name=dataset.name,
            dataset_split=result.split,
            metric_type=row.name,
            metric_name=row.label,
            metric_value=round(row.first, 4),
        )
        for row in result.rows
        if not row.name.startswith("chance")
    ]


def fill(template: Path, data: ModelCardData, repository: str, trunk: Trunk | None, values: dict[str, Any]) -> str:
    bibtex = "\n".join([COMER_BIBTEX, *([trunk.bibtex] if trunk else [])]).strip()
    values = values | {
        "repository": repository,
        "name": repository.rpartition("/")[2],
        "trunk": trunk,
        "bibtex": bibtex,
    }
    card = ModelCard.from_template(data, template_path=str(template), picture=PICTURE, as_code=as_code, **values)
    card.text = rewrap(card.text)
    return f"{str(card).rstrip()}\n"


def as_code(name: str) -> str:
    """A name of a class, whatever is in it, as code in a paragraph or a table."""
    text = " ".join(name.split()).replace("`", "'").replace("|", "\\|")
    return f"`{text}`"


def rewrap(text: str) -> str:
    """Paragraphs and items of lists with full lines, whatever was filled in; code, tables and headings stay."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    prose = [re.split(r"(\n\n|\n(?=- |\||#))", part) for part in parts[::2]]
    parts[::2] = ["".join(map(rewrap_block, blocks)) for blocks in prose]
    return "".join(parts)


def rewrap_block(block: str) -> str:
    if not block.strip() or block.startswith(("|", "#")):
        return block
    indent = "  " if block.startswith("- ") else ""
    words = " ".join(block.split())
    return textwrap.fill(words, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def snippet_shapes(facts: Facts) -> list[tuple[int, ...]]:
    """Of the feature maps of `PICTURE`."""
    width, height = PICTURE
    return [
        (1, facts["channels"][stage], math.ceil(height / stride), math.ceil(width / stride))
        for stage, stride in facts["strides"].items()
    ]
