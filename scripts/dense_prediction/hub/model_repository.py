"""The files of a model's repository: what anybody needs who has transformers and timm but not our package."""

import json
import logging
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import transformers
import yaml
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, PreTrainedModel

import modeling_vit_comer
from modeling_vit_comer import ViTCoMerConfig
from modeling_vit_comer.configuration_heads import HEAD_CONFIGS, carry_code

from ..errors import UserError
from ..recipes.runs import BEST_MODEL, RESULTS
from .backbone_facts import COUNTED, measure_model
from .cards.body import linked_file
from .cards.card import Dataset, Measured, backbone_card, find_trunk, head_card, pipeline_of
from .cards.check import check_card
from .cards.source import CardSource
from .licences import Licence, find_licence, trunk_name
from .public_paths import write_public
from .result_files import Result, read_result


_logger = logging.getLogger(__name__)

PROCESSOR = "preprocessor_config.json"
MEASURED = "measured.json"
RECIPE = "recipe.yaml"
OUTDATED = ("*.safetensors", "*.safetensors.index.json", "*.py")
"""What a version of a model leaves behind in its repository, where transformers might take it for the next one's."""

OF_ONE_RUN = ("name", "output", "overwrite", "resume")
"""What a recipe says that nobody else's run needs."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """What goes beside a model's weights, config and code.

    Attributes:
        card: README.md; if None that of the model's folder, if it has one. Files beside it that it links to go along.
        licence: its name, with `licence_text`; Apache-2.0 if None.
        data_licence: of the data that the model was trained on, in words, for a card that is made.
        results: measured numbers; if None results.json in the model's folder or, of a trained model, beside it.
        max_shard_size: weights are cut into files of this size. An interrupted upload goes on at the next file.
    """

    card: Path | None = None
    licence: str | None = None
    licence_text: Path | None = None
    data_licence: str | None = None
    results: Path | None = None
    max_shard_size: str = "2GB"


def stage_model(folder: Path, repository: str, files: ModelFiles, staged: Path) -> bool:
    """Write into `staged` all that goes into the repository of the model in `folder`.

    Returns:
        Whether somebody wrote the card; else it says only what the files themselves say.

    Raises:
        UserError: the folder holds no complete model of ours, a file or a licence is missing, or the card has faults.
    """
    model = load_model(folder)
    licence = find_licence(backbone_config(model.config).trunk_config, files.licence, files.licence_text)
    results = find_results(folder, files.results)
    card = find_card(folder, files.card)
    try:
        model.save_pretrained(staged, max_shard_size=files.max_shard_size)
    except ValueError as error:
        raise UserError(f"--max-shard-size {files.max_shard_size}: {error}") from error
    copy_processor(folder, staged)
    shutil.copyfile(licence.text, staged / "LICENSE")
    if results is not None:
        write_public(results, staged / RESULTS)
    if card is not None:
        copy_card(card, staged)
    else:
        text = render_card(model, repository, licence, files.data_licence, staged)
        (staged / "README.md").write_text(text, encoding="utf-8")
    refuse_faults(staged / "README.md", card, licence)
    return card is not None


def copy_card(card: Path, staged: Path) -> None:
    """With the files beside it that it links to, unless the repository has them already."""
    shutil.copyfile(card, staged / "README.md")
    for _, target in CardSource(read_card(card)).links:
        linked = linked_file(target, card.parent)
        if linked is not None and linked.is_file() and linked_file(target, staged) is None:
            copy = staged / linked.relative_to(card.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(linked, copy)


def read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the card {path} is no text in UTF-8: {error}") from error


def refuse_faults(staged_card: Path, given: Path | None, licence: Licence) -> None:
    """The Hub would take a faulty card without a word.

    Raises:
        UserError: with a line for each fault.
    """
    text = read_card(staged_card)
    faults = check_card(text, staged_card.parent) or licence_faults(CardSource(text), licence)
    if faults:
        name = given or "that is made from the model's files"
        raise UserError("\n".join([f"the card {name} has faults, and nothing was sent:", *faults]))


def licence_faults(card: CardSource, licence: Licence) -> list[str]:
    """That another licence than the card's goes up with it."""
    said, sent = card.metadata.get("license_name", card.metadata["license"]), licence.name
    if said == sent:
        return []
    return [f"metadata: the licence is {said}, but LICENSE is that of {sent}: give --license and --license-file"]


def render_card(
    model: PreTrainedModel, repository: str, licence: Licence, data_licence: str | None, staged: Path
) -> str:
    """The card that the staged files give, the numbers of its table and the recipe in files of their own beside it."""
    facts = measure_model(model)
    (staged / MEASURED).write_text(json.dumps({"counted": COUNTED} | facts, indent=1) + "\n", encoding="utf-8")
    result = read_result(staged / RESULTS) if (staged / RESULTS).is_file() else None
    shared = {
        "repository": repository,
        "facts": facts["backbone"],
        "facts_file": MEASURED,
        "trunk": find_trunk(trunk_name(backbone_config(model.config).trunk_config)),
        "licence": licence.name,
    } | describe_result(result, data_licence)
    pipeline = pipeline_of(facts["model"])
    if pipeline is None:
        return backbone_card(**shared)
    task = getattr(model.config, "task", None) or pipeline
    counts: dict[str, Any] = {name: facts.get(name) for name in ("parameters", "smallest_side")}
    if shared["run"] is not None:
        recipe = shared["run"]["recipe"]
        write_recipe(recipe, staged / RECIPE)
        shared |= {"recipe": RECIPE, "command": train_command(RECIPE, recipe)}
    return head_card(**shared, model_class=facts["model"], task=task, **counts)


def write_recipe(recipe: dict[str, Any], target: Path) -> None:
    """All that was set for a run, which train.py takes."""
    kept = {key: value for key, value in recipe.items() if key not in OF_ONE_RUN}
    target.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=119), encoding="utf-8")


def train_command(file: str, recipe: dict[str, Any]) -> str:
    """How the run is repeated by somebody who has the data and the plain ViT's weights in places of their own."""
    data, weights = recipe["data"], recipe["backbone"].get("trunk_weights")
    places = ["data.path=FOLDER"] if data["path"] != data.get("format") else []
    places += ["backbone.trunk_weights=FILE"] if weights else []
    return shlex.join(["vit-comer", "train", file, *places])


def describe_result(result: Result | None, data_licence: str | None) -> dict[str, Any]:
    """What a card says of results.json."""
    if result is None:
        return {"result": None, "dataset": None, "run": None}
    if "recipe" not in result.content:
        raise UserError(f"{RESULTS} has no recipe, which says what was learnt: give the file that train.py wrote")
    name = Path(result.content["recipe"]["data"]["path"]).name
    if data_licence is None:
        _logger.warning("the card does not say which licence the data %s have: give --data-license NAME", name)
    return {
        "result": Measured.build({RESULTS: result}, seeds=[]),
        "dataset": Dataset(name=name, type=name, licence=data_licence or ""),
        "files": [RESULTS],
        "classes": result.classes,
        "run": result.content if "curve" in result.content else None,
    }


def load_model(folder: Path) -> PreTrainedModel:
    """The backbone or the head's model in a folder, which will be saved together with the code of its backbone.

    Raises:
        UserError: there is none, weights are missing or too many, or the backbone is no ViT-CoMer.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder)
        model_class = find_class(folder, config)
        loaded = model_class.from_pretrained(folder, config=config, output_loading_info=True)
        # Which the types of transformers leave out: a pair, because of output_loading_info.
        model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
        if config.model_type != ViTCoMerConfig.model_type:
            carry_code(model)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load the model in {folder}: {' '.join(str(error).split())}") from error
    for name, keys in report.items():
        if keys:
            raise UserError(f"the weights in {folder} do not fit its config: {name} {sorted(map(str, keys))[:5]}")
    return model.eval()


def find_class(folder: Path, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a saved model, by name: one of ours, or a head of transformers."""
    name = next(iter(config.architectures or []), "")
    library = modeling_vit_comer if isinstance(config, ViTCoMerConfig) else transformers
    if type(config) is not ViTCoMerConfig and type(config).__name__ not in HEAD_CONFIGS:
        raise UserError(f"{folder} holds a {name or config.model_type}, which is no model round a ViT-CoMer")
    if not hasattr(library, name):
        raise UserError(f"config.json in {folder} does not say which model it is: architectures is {name!r}")
    return getattr(library, name)


def backbone_config(config: PreTrainedConfig) -> ViTCoMerConfig:
    """Of a head's config, or the config itself."""
    return cast(ViTCoMerConfig, getattr(config, "backbone_config", config))


def copy_processor(folder: Path, staged: Path) -> None:
    try:
        AutoImageProcessor.from_pretrained(folder)
        shutil.copyfile(folder / PROCESSOR, staged / PROCESSOR)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no {PROCESSOR} that can be read, by which others prepare images as the model needs them: "
            "save one there, for example transformers.ViTImageProcessor(do_resize=False, image_mean=[...], "
            "image_std=[...]).save_pretrained(FOLDER)"
        ) from error


def find_results(folder: Path, given: Path | None) -> Path | None:
    """A file that was asked for, or what `train.py` wrote: OUTPUT/results.json beside OUTPUT/best_model."""
    if given is not None and not given.is_file():
        raise UserError(f"--results: there is no file {given}")
    beside = [folder.resolve().parent / RESULTS] if folder.resolve().name == BEST_MODEL else []
    return given or next((path for path in [folder / RESULTS, *beside] if path.is_file()), None)


def find_card(folder: Path, given: Path | None) -> Path | None:
    if given is not None and not given.is_file():
        raise UserError(f"--card: there is no file {given}")
    return given or next((path for path in [folder / "README.md"] if path.is_file()), None)
