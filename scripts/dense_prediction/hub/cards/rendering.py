"""The cards in `hub_cards/`: one for each backbone preset and each trained head, from committed result files alone."""

import json
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from modeling_vit_comer import ViTCoMerConfig
from modeling_vit_comer.presets import preset_names, preset_path

from ...errors import UserError
from ...recipes.loading import load_recipe
from ..result_files import read_json
from ..trained_heads import RESULTS, TrainedHead, read_heads, read_results, recipe_of
from .card import BACKBONE_TEMPLATE, CARDS, HEAD_TEMPLATE, Measured, backbone_card, find_trunk, head_card, sections_of
from .check import check_card


ORGANISATION = "org"
"""Stands in the repositories' names for whoever publishes them."""

BACKBONE_FACTS, HEAD_FACTS = f"{RESULTS}/backbones.json", f"{RESULTS}/heads.json"


def repository_of(name: str) -> str:
    return f"{ORGANISATION}/{name}"


def render_cards() -> dict[str, str]:
    """The text of each card by its name.

    Raises:
        UserError: a result file is missing or has not what a card needs.
    """
    backbones = {name: preset_card(name) for name in preset_names()}
    return backbones | {name: trained_head_card(name, head) for name, head in read_heads().items()}


def preset_card(name: str) -> str:
    preset = describe_preset(name)
    return backbone_card(
        repository=repository_of(name),
        facts=measured(BACKBONE_FACTS, "backbones", name),
        facts_file=BACKBONE_FACTS,
        trunk=find_trunk(preset["trunk"] or ""),
        licence="apache-2.0",
        preset=preset,
        speeds=list(find_speeds(name)),
        memories=list(find_memories(name)),
    )


def trained_head_card(name: str, head: TrainedHead) -> str:
    facts = measured(HEAD_FACTS, "heads", name)
    runs, tests = read_results(head.runs), read_results(head.tests)
    first = next(iter(runs.values()))
    seeds = [run.content["seed"] for run in runs.values()]
    baseline = measured_baseline(head, seeds)
    return head_card(
        repository=repository_of(name),
        model_class=facts["model"],
        task=recipe_of(first).task,
        trunk=find_trunk(head.trunk or ""),
        trunk_note=head.trunk_note,
        licence=head.licence,
        dataset=head.dataset,
        result=Measured.build(tests or runs, seeds, head.dataset.validation),
        baseline=baseline,
        baseline_name=head.baseline and head.baseline.name,
        files=[*runs, *tests, *(baseline.files if baseline else [])],
        run=first.content,
        classes=first.classes,
        command=train_command(first.name, head.arguments),
        parameters=facts["parameters"],
        smallest_side=facts.get("smallest_side"),
        facts=facts["backbone"],
        facts_file=HEAD_FACTS,
    )


def measured_baseline(head: TrainedHead, seeds: list[int]) -> Measured | None:
    """What the card compares with, if anything.

    Raises:
        UserError: a file cannot be read, or the seeds are not those of the head.
    """
    if head.baseline is None:
        return None
    runs, tests = read_results(head.baseline.runs), read_results(head.baseline.tests)
    found = [run.content["seed"] for run in runs.values()]
    if found != seeds:
        raise UserError(f"the baseline {head.baseline.name!r} must have the same seeds, {seeds}, and has {found}")
    return Measured.build(tests or runs, seeds, head.dataset.validation)


def measured(file: str, kind: str, name: str) -> dict[str, Any]:
    """What scripts/measure_models.py wrote of a model.

    Raises:
        UserError: the file is missing, or does not know the model.
    """
    try:
        return read_json(CARDS / file)[kind][name]
    except KeyError as error:
        raise UserError(f"hub_cards/{file} says nothing of {name}: run scripts/measure_models.py again") from error


def describe_preset(name: str) -> dict[str, Any]:
    """What a card says of a configuration: the ViT it is for, trained heads, and how one makes weights."""
    recipe = yaml.safe_load((CARDS / "backbones.yaml").read_text(encoding="utf-8"))[name]
    trunk = load_recipe(recipe).backbone.trunk
    is_segmentation = ViTCoMerConfig.from_preset(name).vit_feature_fusion == "per_stage"
    heads = read_heads().items()
    return {
        "name": name,
        "trunk": trunk,
        "heads": [
            head for head, fields in heads if recipe in {run.name for run in read_results(fields.runs).values()}
        ],
        "train_command": train_command(recipe, ["data.path=FOLDER"] if trunk else []),
        "build_command": command(
            ["scripts/build_backbone.py", f"--trunk={trunk}", "--output", name, *config_fields(name)]
        ),
        "flavour": "segmentation" if is_segmentation else "detection",
    }


def train_command(recipe: str, arguments: list[str]) -> str:
    return command(["scripts/train.py", f"configuration/recipes/{recipe}.yaml", *arguments])


def command(words: list[str]) -> str:
    """A call of a script, on as many lines as it needs."""
    text = f"python {shlex.join(words)}"
    return " \\\n    ".join(textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False))


def config_fields(name: str) -> list[str]:
    """Of a preset, as build_backbone.py takes them; the trunk has its own argument there."""
    fields = json.loads(preset_path(name).read_text(encoding="utf-8"))
    kept = {key: value for key, value in fields.items() if key not in ("model_type", "trunk_config")}
    return [f"{key}={value if isinstance(value, str) else compact(value)}" for key, value in kept.items()]


def compact(value: Any) -> str:
    """JSON without spaces, at which a command might be broken into lines."""
    return json.dumps(value, separators=(",", ":"))


def result_files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with the path that a card links to."""
    for path in sorted((CARDS / RESULTS).rglob("*.json")):
        yield path.relative_to(CARDS).as_posix(), read_json(path)


def find_speeds(preset: str) -> Iterator[dict[str, Any]]:
    """What scripts/benchmark.py measured of a preset."""
    for file, content in result_files():
        if content.get("preset") == preset and "forward" in content:
            seconds = content["forward"]["median"]["wall_s"]
            yield content | {"file": file, "with_kernel": seconds.get("kernel"), "without": seconds["embedding_bag"]}


def find_memories(preset: str) -> Iterator[dict[str, Any]]:
    """What scripts/measure_memory.py measured of a preset."""
    for file, content in result_files():
        training = content.get("training", {})
        if isinstance(training, dict) and training.get("preset") == preset:
            yield content | {"file": file}


def stale_cards(cards: dict[str, str]) -> list[str]:
    """Names of files that are not what `cards` says, or are no card any more."""
    paths = [path for path in CARDS.glob("*.md") if path.name != "README.md"]
    written = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    return sorted(name for name in written.keys() | cards.keys() if written.get(name) != cards.get(name))


def card_faults(cards: dict[str, str]) -> list[str]:
    """What is wrong with the cards, each fault with the name of its card."""
    faults = []
    for name, text in cards.items():
        template = BACKBONE_TEMPLATE if name in preset_names() else HEAD_TEMPLATE
        faults += [f"{name}: {fault}" for fault in check_card(text, CARDS, sections_of(template))]
    return faults
