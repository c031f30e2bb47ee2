"""Points 1 to 6 of the card check: the metadata, of which the Hub accepts nearly everything in silence."""

import difflib
import inspect
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .source import CardSource


KNOWN: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("hub_metadata.yaml").read_text(encoding="utf-8"))
# Not written to the card under their own names.
_ARGUMENTS = {"self", "kwargs", "ignore_metadata_errors", "eval_results", "model_name"}
KEYS = sorted({*KNOWN["keys"], *inspect.signature(ModelCardData.__init__).parameters} - _ARGUMENTS)

Metadata = dict[str, Any]


def metadata_faults(card: CardSource, folder: Path) -> Iterator[str]:
    """Of the block itself (1), and if that can be read, of what it says (2 to 6)."""
    try:
        metadata = card.metadata
    except yaml.YAMLError as error:
        yield f"metadata: {' '.join(str(error).split())}"
        return
    if not isinstance(metadata, dict) or not metadata:
        yield "metadata: the card must begin with a YAML block of `key: value` lines between two lines of ---"
        return
    yield from key_faults(metadata)
    yield from licence_faults(metadata, folder)
    yield from kind_faults(metadata)
    yield from model_index_faults(metadata.get("model-index", []))
    yield from repository_faults(metadata)


def key_faults(metadata: Metadata) -> Iterator[str]:
    """(2) A misspelt key is kept and never read."""
    for key in metadata:
        if key not in KEYS:
            yield f"metadata: the Hub does not know the key {key!r}{_nearest(str(key), KEYS)}"


def licence_faults(metadata: Metadata, folder: Path) -> Iterator[str]:
    """(3)"""
    if "license" not in metadata:
        yield f"metadata: license is missing{_nearest('', KNOWN['licences'])}"
    for licence in as_list(metadata.get("license", [])):
        if licence not in KNOWN["licences"]:
            hint = _nearest(str(licence), KNOWN["licences"])
            yield f"metadata: license {licence!r} is none that the Hub knows{hint}, or other with license_name"
    if metadata.get("license") != "other":
        return
    if not metadata.get("license_name"):
        yield "metadata: license other needs license_name"
    if not metadata.get("license_link") and not (folder / "LICENSE").is_file():
        yield "metadata: license other needs license_link, or a file LICENSE beside the card"


def kind_faults(metadata: Metadata) -> Iterator[str]:
    """(4) By these the Hub finds the library's snippet and the filter that lists the model."""
    for key, known in (("pipeline_tag", KNOWN["pipeline_tags"]), ("library_name", KNOWN["libraries"])):
        value = metadata.get(key)
        if value not in known:
            yield f"metadata: {key} {value!r} is none that can be used{_nearest(str(value), known)}"


def model_index_faults(model_index: Any) -> Iterator[str]:
    """(5) An entry that is not complete is left out of the page."""
    if not isinstance(model_index, list):
        yield "metadata: model-index must be a list of models"
        return
    for model in model_index:
        if not isinstance(model, dict) or not model.get("name") or not model.get("results"):
            yield "metadata: model-index: a model needs name and results"
            continue
        for position, result in enumerate(as_list(model["results"])):
            for fault in result_faults(as_mapping(result)):
                yield f"metadata: model-index, result {position}: {fault}"


def result_faults(result: Metadata) -> Iterator[str]:
    for part, keys in (("task", ["type"]), ("dataset", ["name", "type", "split"])):
        missing = [key for key in keys if not as_mapping(result.get(part)).get(key)]
        if missing:
            yield f"{part} needs {' and '.join(missing)}"
    for metric in map(as_mapping, as_list(result.get("metrics") or {})):
        value = metric.get("value")
        if not metric.get("type"):
            yield "a metric needs type"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield f"the metric {metric.get('type')!r} has the value {value!r}, which is no finite number"


def repository_faults(metadata: Metadata) -> Iterator[str]:
    """(6)"""
    for key in ("base_model", "datasets"):
        for name in as_list(metadata.get(key, [])):
            try:
                validate_repo_id(name)
            except HFValidationError:
                yield f"metadata: {key} {name!r} is no repository on the Hub: expected name or org/name"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_mapping(value: Any) -> Metadata:
    """Nothing in place of what is no mapping, so that all its keys are missing."""
    return value if isinstance(value, dict) else {}


def _nearest(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; for example {', '.join(list(known)[:3])}"
