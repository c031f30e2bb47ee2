"""The cards in `hub_cards/`: they are what the templates make, their snippets run, their numbers are measured."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTImageProcessor

import measure_models
import render_cards
import snippet_client
from dense_prediction.command_line import parse_fields
from dense_prediction.hub.backbone_facts import measure_backbone
from dense_prediction.hub.cards.card import CARDS
from dense_prediction.hub.cards.check import check_card
from dense_prediction.hub.cards.numbers import NAMES, NUMBER
from dense_prediction.hub.cards.rendering import (
    BACKBONE_FACTS,
    HEAD_FACTS,
    ORGANISATION,
    card_faults,
    stale_cards,
)
from dense_prediction.hub.cards.source import CardSource
from dense_prediction.hub.model_repository import ModelFiles, stage_model
from dense_prediction.hub.result_files import Result
from dense_prediction.hub.trained_heads import build_head, read_heads, read_results, recipe_of
from dense_prediction.models.saved_models import build_processor
from dense_prediction.recipes.loading import load_recipe
from hub import Hub, serve
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.presets import preset_names
from scripts_in_process import last_error, run_script


NAMES_OF_HEADS = sorted(read_heads())
NAMES_OF_CARDS = [*preset_names(), *NAMES_OF_HEADS]


def card_text(name: str) -> str:
    return (CARDS / f"{name}.md").read_text(encoding="utf-8")


def first_run(name: str) -> Result:
    return next(iter(read_results(read_heads()[name].runs).values()))


def test_cards_are_what_is_rendered_now() -> None:
    assert run_script(render_cards, "--check") == 0


def test_stale_and_faulty_cards_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cards = {name: card_text(name) for name in NAMES_OF_CARDS}
    assert stale_cards(cards) == [] and card_faults(cards) == []
    cards["vit-comer-t"] += "\n"
    cards["vit-comer-x"] = cards.pop("vit-comer-s")
    assert stale_cards(cards) == ["vit-comer-s", "vit-comer-t", "vit-comer-x"]
    monkeypatch.setattr(render_cards, "render_cards", lambda: cards)
    assert run_script(render_cards, "--check") == 1
    assert last_error(capsys) == "not up to date: vit-comer-s, vit-comer-t, vit-comer-x; run scripts/render_cards.py"
    cards["vit-comer-t"] += "TODO\n"
    assert run_script(render_cards) == 1
    assert re.match(r"vit-comer-t: line \d+: 'TODO' is left over from a template", last_error(capsys))


@pytest.mark.parametrize("name", NAMES_OF_CARDS)
def test_a_changed_digit_is_found(name: str) -> None:
    """Of every number that is long enough not to be somewhere by chance."""
    text = card_text(name)
    printed = [number for _, number in CardSource(text).find_in_prose(NUMBER, NAMES)]
    long_ones = {number for number in printed if len(re.sub(r"\D", "", number)) >= 4 and number.count(".") < 2}
    assert len(long_ones) >= 2
    for number in long_ones:
        # Among a thousand measured numbers one wrong digit may give another of them; hardly three do.
        wrong = [number[:-1] + str((int(number[-1]) + step) % 10) for step in (1, 2, 3)]
        assert any(is_refused(text, number, changed) for changed in wrong), number


def is_refused(text: str, number: str, changed: str) -> bool:
    faults = check_card(text.replace(f" {number}", f" {changed}"), CARDS)
    return any(f"{changed} is in no result file" in fault for fault in faults)


# Measured again


def read_facts(file: str, kind: str) -> dict[str, Any]:
    return json.loads((CARDS / file).read_text())[kind]


@pytest.mark.parametrize("name", ["vit-comer-demo", "vit-comer-s"])
def test_a_preset_measured_again(name: str, tmp_path: Path) -> None:
    output = tmp_path / "new" / "facts.json"
    assert run_script(measure_models, "--presets", name, "--output", output) == 0
    measured = json.loads(output.read_text())
    assert measured["backbones"] == {name: read_facts(BACKBONE_FACTS, "backbones")[name]}
    assert measured["counted"] == json.loads((CARDS / BACKBONE_FACTS).read_text())["counted"]


@pytest.mark.parametrize("name", preset_names())
def test_parameters_of_every_preset(name: str) -> None:
    with torch.device("meta"):
        backbone = ViTCoMerBackbone(ViTCoMerConfig.from_preset(name))
    facts = read_facts(BACKBONE_FACTS, "backbones")[name]
    assert facts["parameters"] == backbone.num_parameters()
    assert facts["trunk_parameters"] == sum(parameter.numel() for parameter in backbone.trunk.parameters())
    assert facts["strides"] == backbone.strides and list(facts["channels"].values()) == backbone.channels


def test_the_heads_measured_again(tmp_path: Path) -> None:
    assert run_script(measure_models, "--heads", "--output", tmp_path / "facts.json") == 0
    assert json.loads((tmp_path / "facts.json").read_text())["heads"] == read_facts(HEAD_FACTS, "heads")


def test_every_preset_was_measured() -> None:
    assert sorted(read_facts(BACKBONE_FACTS, "backbones")) == preset_names()


def test_unknown_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(measure_models, "--presets", "vit-comer-xl", "--output", tmp_path / "facts.json") == 1
    assert last_error(capsys).startswith("no preset 'vit-comer-xl'; there are vit-comer-b, ")


def test_multiply_accumulates_by_hand() -> None:
    """Of one linear layer and the sampling: 4 corners of heads x levels x points, a head's channels each."""
    config = ViTCoMerConfig.from_preset("vit-comer-demo")
    tokens, heads, samples = 64 * 64 + 32 * 32 + 16 * 16, 4, 3 * 4
    attentions = 2 * len(config.depths)  # CTI to ViT and CTI to CNN of each stage
    sampled = attentions * tokens * heads * samples * 4 * (config.hidden_size * config.deform_ratio // heads)
    assert measure_backbone(config)["sampling_gmacs"] == round(sampled / 1e9, 2)


# Commands


def commands(name: str, script: str) -> Iterator[list[str]]:
    """The arguments of a script on a card."""
    for block in CardSource(card_text(name)).code_blocks:
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[:2] == ["python", f"scripts/{script}.py"]:
                yield words[2:]


@pytest.mark.parametrize("name", NAMES_OF_CARDS)
def test_recipes_on_cards_can_be_read(name: str) -> None:
    ((recipe, *overrides),) = commands(name, "train")
    assert load_recipe(CARDS.parent / recipe, overrides).data.path


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "vit-comer-demo"])
def test_fields_on_cards_are_those_of_the_preset(name: str) -> None:
    ((trunk, *options),) = commands(name, "build_backbone")
    assert options[:2] == ["--output", name]
    architecture = trunk.removeprefix("--trunk=timm/").partition(".")[0]
    fields = parse_fields(options[2:])
    config, preset = (
        ViTCoMerConfig(trunk_config={"architecture": architecture}, **fields),
        ViTCoMerConfig.from_preset(name),
    )
    of_the_trunk = {"trunk_config", "image_size", "patch_size"}
    assert without(config, of_the_trunk) == without(preset, of_the_trunk)


def without(config: ViTCoMerConfig, fields: set[str]) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in fields}


# Snippets


@dataclass
class Newcomer:
    """A process in which our package cannot be imported, and the Hub that it loads from."""

    process: subprocess.Popen[str]
    hub: Hub
    home: Path

    def run(self, code: str) -> str:
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, (self.home / "errors").read_text()
        return json.loads(answer)

    def forget(self) -> None:
        """What was loaded, so that one model at a time lies in memory and on the disk."""
        self.hub.repositories.clear()
        self.hub.blobs.clear()
        shutil.rmtree(self.home / "hub")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    hub, home = Hub(), tmp_path_factory.mktemp("home")
    command = [sys.executable, snippet_client.__file__, "modeling_vit_comer", "dense_prediction", "kernels"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with serve(hub) as endpoint, (home / "errors").open("w") as errors:
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, cwd=home, env=environment, text=True, **pipes) as process:
            yield Newcomer(process, hub, home)
            process.stdin.close()


def save_preset(name: str, folder: Path) -> None:
    """All weights zero, and bfloat16: what is tested are shapes, and the largest has hundreds of millions."""
    with torch.device("meta"):
        backbone = ViTCoMerBackbone(ViTCoMerConfig.from_preset(name)).to(torch.bfloat16)
    backbone.to_empty(device="cpu")
    for weight in backbone.state_dict().values():
        weight.zero_()
    backbone.save_pretrained(folder)
    ViTImageProcessor(do_resize=False).save_pretrained(folder)


def save_head(name: str, folder: Path) -> None:
    result = first_run(name)
    recipe = recipe_of(result)
    torch.manual_seed(0)
    build_head(result).save_pretrained(folder)
    build_processor(recipe.head, recipe.transforms).save_pretrained(folder)


def publish(name: str, hub: Hub, root: Path) -> None:
    """As push_to_hub.py does, with the committed card."""
    repository, staged = f"{ORGANISATION}/{name}", root / "staged"
    (save_head if name in NAMES_OF_HEADS else save_preset)(name, root / "saved")
    licence = CardSource(card_text(name)).metadata["license"]
    (root / "licence").write_text(licence)
    files = ModelFiles(card=CARDS / f"{name}.md", licence=licence, licence_text=root / "licence")
    stage_model(root / "saved", repository, files, staged / repository)
    hub.add_folders(staged)
    shutil.rmtree(root / "saved")
    shutil.rmtree(staged)


SMALL, LARGE = (
    [name for name in NAMES_OF_CARDS if name.startswith("vit-comer-l") is large] for large in (False, True)
)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_snippet(name: str, newcomer: Newcomer, tmp_path: Path) -> None:
    """It prints what it promises, or classes that a head knows; one with random weights is sure of none."""
    (code,) = (block.code for block in CardSource(card_text(name)).code_blocks if block.language == "python")
    publish(name, newcomer.hub, tmp_path)
    printed = newcomer.run(code.replace("threshold=0.5", "threshold=0.0"))
    newcomer.forget()
    if name in NAMES_OF_HEADS:
        found = re.findall(r"^(.+?) [<{].+$", printed, re.MULTILINE)
        assert len(found) == printed.count("\n") > 0 and set(found) <= set(first_run(name).classes)
    else:
        assert printed == "".join(re.findall(r"^# (.+\n)", code, re.MULTILINE)) != ""
