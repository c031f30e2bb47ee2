"""Point 10 of the card check: every number of a card was measured, and its file is named."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from ..result_files import Result, read_json, read_result, summarize
from .body import linked_file
from .metadata import as_mapping, model_index_faults
from .source import CardSource


NAMES = re.compile(
    r"(?m:^# .*|^\s*\d+[.)] )|CVPR \d{4}|arXiv:? ?\d{4}\.\d{4,5}|Figure \d+|\b[23]D\b|https?://\S+|<[^>]*>"
)
"""Numbers that measure nothing: in the card's title, before an item of a list, in names of papers, addresses, tags."""

NUMBER = re.compile(r"(?:(?<![\w.\-/+])-?|(?<=\d[-–/:]))\d+(?:,\d{3})*(?:\.\d+)*(?:e-?\d+)?(?![\d_])")
"""Not what belongs to a word: DINOv2, float32, ViT-S/16, ImageNet-1K."""


def number_faults(card: CardSource, folder: Path) -> Iterator[str]:
    """(10) Of a folder without result files nothing is asked."""
    files = {target for _, target in card.links if target.endswith(".json") and linked_file(target, folder)}
    if not files and not has_results(folder):
        return
    known = KnownNumbers([folder / file for file in sorted(files)])
    reason = f"is in no result file that the card links to ({', '.join(sorted(files)) or 'it links to none'})"
    for place, printed in [*numbers_in_text(card), *numbers_in_metadata(card)]:
        if printed not in known:
            yield f"{place}: {printed} {reason}"


def has_results(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("results.json", "measured.json", "results/**/*.json"))


def numbers_in_text(card: CardSource) -> Iterator[tuple[str, str]]:
    """Outside of code, links and names, each with its place."""
    for line, printed in card.find_in_prose(NUMBER, NAMES):
        yield f"line {line}", printed


def numbers_in_metadata(card: CardSource) -> Iterator[tuple[str, str]]:
    """The metrics of the model-index, unless something else is wrong with that."""
    try:
        model_index = as_mapping(card.metadata).get("model-index")
    except yaml.YAMLError:
        return
    if model_index and not any(model_index_faults(model_index)):
        for result in model_index_to_eval_results(model_index)[1]:
            yield f"metadata: model-index, {result.metric_type}", str(result.metric_value)


class KnownNumbers:
    """All numbers of result files, those in their strings included, and the means over seeds."""

    def __init__(self, paths: list[Path]) -> None:
        contents = [read_json(path) for path in paths]
        self.words = {word for content in contents for word in words_of(content)}
        self.values = {Decimal(word) for word in self.words if re.fullmatch(r"-?\d+(\.\d+)?", word)}
        self.values |= {Decimal(repr(value)) for content in contents for value in numbers_of(content)}
        self.values |= {Decimal(repr(value)) for value in means([read_result(path) for path in paths if is_run(path)])}

    def __contains__(self, printed: str) -> bool:
        """Whether a number is `printed` when it is rounded to as many digits; a version has to be equal."""
        plain = printed.replace(",", "")
        if plain in self.words:
            return True
        try:
            wanted = Decimal(plain)
        except InvalidOperation:
            return False
        if not wanted.is_finite():
            return False
        exponent = cast(int, wanted.as_tuple().exponent)  # a letter of what is not finite alone
        return any(abs(value - wanted) * 2 <= Decimal(1).scaleb(exponent) for value in self.values)


def numbers_of(content: Any) -> Iterator[int | float]:
    match content:
        case dict() | list():
            for value in content.values() if isinstance(content, dict) else content:
                yield from numbers_of(value)
        case bool():
            pass
        case int() | float() if math.isfinite(content):
            yield content


def words_of(content: Any) -> Iterator[str]:
    """Numbers and versions inside the strings."""
    match content:
        case dict() | list():
            for value in content.values() if isinstance(content, dict) else content:
                yield from words_of(value)
        case str():
            yield from (word.replace(",", "") for word in NUMBER.findall(content))


def is_run(path: Path) -> bool:
    return not {"evaluations", "metrics"}.isdisjoint(read_json(path))


def means(results: list[Result]) -> Iterator[float]:
    """Over the results of one recipe on one split."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.name, result.split].append(result)
    for group in groups.values():
        yield from (row.mean for row in summarize(group))
