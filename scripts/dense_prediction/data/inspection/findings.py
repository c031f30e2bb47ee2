"""What follows from a look at the data: what ends a run before it begins, and what a person is told."""

import logging
from collections.abc import Iterator, Mapping

from ...errors import UserError
from ..annotations.semantic_maps import WHITE, SemanticIds, SemanticOptions
from ..bad_samples import HINT
from ..options import DataOptions, some
from .looking import Facts, Inspection


_logger = logging.getLogger(__name__)

MOST_VOID = 0.5
MOST_SKIPPED = 0.1
"""Of all samples; if more are bad ones, it is not the samples that are wrong."""

FEW = 20
"""Masks or objects; where so many are of no use, it is no accident."""


def check(inspection: Inspection, labels: list[str]) -> None:
    """Refuse splits without anything to be learnt or measured, and warn of what is missing in others.

    Raises:
        UserError: for these.
    """
    for key, facts in inspection.facts.items():
        finding = Finding(key, facts, inspection.options, labels)
        finding.refuse()
        for warning in finding.warnings():
            _logger.warning("%s: %s", finding.where, warning)
    _warn_of_unlearnt(inspection)


def describe(inspection: Inspection, asked: DataOptions, labels: list[str]) -> Iterator[str]:
    """A line for each split, and one for what the label files have decided.

    Args:
        asked: the options of the recipe.
    """
    for key, facts in inspection.facts.items():
        yield f"{_where(key, inspection.options)}: {_summary(facts)}"
    if (found := inspection.intensities) is not None and found.deep:
        low, high = inspection.options.known_intensity or found.range("auto")
        yield (
            f"pictures of {found.kind} hold {found.lowest:g} to {found.highest:g} ({found.pictures} were looked at): "
            f"{low:g} is black and {high:g} white (data.intensity=[{low:g}, {high:g}])"
        )
    if getattr(inspection.options, "foreground_255", None) != getattr(asked, "foreground_255", None):
        yield (
            f"the label files hold 0 and 255 alone: 255 is read as the class {labels[1]!r} in all splits "
            "(data.foreground_255=true; false takes it for data.ignore_index)"
        )


def warn_of_limits(
    facts: Mapping[str, Facts], options: DataOptions, queries: tuple[str, int] | None, most: int | None
) -> None:
    """Say it if a picture holds more than can be found or counts.

    Args:
        queries: which field of the head's config says how many objects it finds, and how many those are.
        most: predictions of a picture that count.
    """
    for key, found in facts.items():
        things = "classes" if found.unit == "pixels" else "objects"
        held = f"{_where(key, options)}: up to {found.most} {things} in a picture ({looked_at(found)})"
        if queries is not None and found.most > queries[1]:
            _logger.warning(
                "%s, but the head has %d queries and finds no more: train it with head.config.%s=%d",
                *(held, queries[1], queries[0], found.most),
            )
        if most is not None and found.most > most and key != "train_split":
            _logger.warning(
                "%s, but the best %d predictions alone count: with evaluation.max_detections=%d all can, and the "
                "numbers say so by their names",
                *(held, most, found.most),
            )


def describe_skipped(counts: Mapping[str, int]) -> str:
    """How many bad samples of each split were passed over, or nothing if there are none."""
    parts = [f"{count:,} bad samples of {name}" for name, count in counts.items() if count]
    return f"skipped  {', '.join(parts)}" if parts else ""


def warn_of_skipped(where: str, skipped: int, total: int) -> bool:
    """Whether so many samples are passed over that it is not they that are wrong; then it is said."""
    if skipped <= MOST_SKIPPED * total:
        return False
    _logger.warning(
        "%s: %d of %d samples are bad and were SKIPPED (%.0f %%): the log names them and says why; if they are good, "
        "the recipe is wrong about the data (data.bad_samples=refuse stops at the first)",
        *(where, skipped, total, 100 * skipped / total),
    )
    return True


class Finding:
    """What is wrong with one split.

    Attributes:
        where: what a message calls it.
    """

    def __init__(self, key: str, facts: Facts, options: DataOptions, labels: list[str]) -> None:
        self.facts, self.options, self.labels = facts, options, labels
        self.is_learnt = key == "train_split"
        self.where = _where(key, options)

    def refuse(self) -> None:
        """Raises `UserError` where nothing can be learnt or measured, or where ids are of no class."""
        facts = self.facts
        if facts.unknown[0] and not self.options.skips_bad_samples:
            raise UserError(f"{self.where}: {self._strange_ids()}; {HINT}")
        if (misspelt := self._misspelt()) and not self.options.skips_bad_samples:
            raise UserError(f"{self.where}: {misspelt}; {HINT}")
        if facts.total == 0 and self._is_certain():
            raise UserError(f"{self.where}: there is nothing to be {self._used}: {self._why_nothing()}")
        if facts.unit == "pixels" and self._present() == 1 and self._is_refused_alone():
            raise UserError(f"{self.where}: there is nothing to be {self._used}: {self._one_class()}")

    def warnings(self) -> Iterator[str]:
        """One for each thing that is missing."""
        facts = self.facts
        looked = "" if facts.is_whole else f" ({looked_at(facts)})"
        if facts.total == 0:
            yield f"nothing to be {self._used} was seen{looked}"
        elif facts.absent:
            yield f"no {_singular(facts.unit)} of {', '.join(facts.absent)}{looked}"
        if facts.void_share > MOST_VOID:
            yield f"{facts.void_share:.0%} of the pixels are void{looked}: is data.ignore_index right?"
        if facts.left_out and self.options.labels is None:
            yield (
                f"{_listed(facts.left_out)} of categories that the training split does not name: they are left out, "
                "as what is not learnt cannot be found"
            )
        if facts.bad > MOST_SKIPPED * facts.looked_at:
            yield f"{facts.bad} of {facts.looked_at} samples are bad and will be skipped"

    @property
    def _used(self) -> str:
        return "learnt" if self.is_learnt else "measured"

    def _misspelt(self) -> str:
        """The first category that differs from a class by its case or by spaces alone."""
        by_spelling = {label.strip().casefold(): label for label in self.labels}
        for name, count in self.facts.left_out.items():
            if (label := by_spelling.get(name.strip().casefold())) is not None:
                return f"the category {name!r} ({count:,}) is no class, but {label!r} is: spell both alike"
        return ""

    def _is_certain(self) -> bool:
        """Whether a look that has found nothing proves that there is nothing."""
        facts = self.facts
        unusable = facts.looked_at if facts.unit == "pixels" else facts.crowds + sum(facts.left_out.values())
        return facts.is_whole or unusable >= FEW

    def _present(self) -> int:
        return len(self.labels) - len(self.facts.absent)

    def _is_refused_alone(self) -> bool:
        """Whether a single class is too little: to learn in any case, to measure where 255 may be the other one."""
        undecided = getattr(self.options, "foreground_255", None) is None
        return (self._may_be_white() and undecided and self._is_certain()) or (self.is_learnt and self.facts.is_whole)

    def _may_be_white(self) -> bool:
        values = set(self.facts.values)
        return {0, WHITE} <= values and 1 not in values

    def _why_nothing(self) -> str:
        facts = self.facts
        if facts.unit == "pixels":
            return f"no pixel is of a class ({looked_at(facts)}): {self._strange_ids()}"
        if facts.left_out:
            return f"{_listed(facts.left_out)} are no class, those are {', '.join(self.labels)} (data.labels)"
        if facts.crowds:
            return (
                f"all {facts.crowds:,} objects are marked as crowds (iscrowd=1, VOC's difficult=1), which stand for "
                "what cannot be told apart and are neither learnt nor missed: if they are objects like all others, "
                "mark them with 0 in the files or set data.crowds=objects"
            )
        return f"no object is annotated ({looked_at(facts)})"

    def _strange_ids(self) -> str:
        facts = self.facts
        held = f"the label files hold the ids {some(facts.values)} ({looked_at(facts)}"
        held += f"; {facts.unknown[1]} has {some(facts.unknown[0])})" if facts.unknown[0] else ")"
        return (
            f"{held}, allowed are {self._allowed()}: name the class of every id in data.labels, in the order of their "
            f"ids from {self._first()} on, or write such ids into the files"
        )

    def _one_class(self) -> str:
        (only,) = (label for label, count in self.facts.by_class.items() if count)
        text = f"all labelled pixels are of one class, {only}"
        if not isinstance(self.options, SemanticOptions):
            return f"{text} ({looked_at(self.facts)}): maps are painted from outlines of objects, and it has no others"
        text = f"{text}; {self._strange_ids()}"
        if not self._may_be_white():
            return text
        if len(self.labels) == 2:
            return f"{text}; data.foreground_255=true reads 255 as {self.labels[1]}, in all splits"
        return f"{text}; with two names in data.labels, 255 is read as the second one"

    def _allowed(self) -> str:
        return self._ids().allowed()

    def _first(self) -> int:
        return int(self._ids().reduce)

    def _ids(self) -> SemanticIds:
        assert isinstance(self.options, SemanticOptions)
        return SemanticIds.of(self.options, self.labels)


def looked_at(facts: Facts) -> str:
    """`looked at 200 of 12,000 masks`, or `looked at all 205 pictures`."""
    things = "masks" if facts.unit == "pixels" else "pictures"
    if facts.is_whole:
        return f"looked at all {facts.looked_at:,} {things}"
    return f"looked at {facts.looked_at:,} of {f'{facts.pictures:,} {things}' if facts.pictures else 'a stream'}"


def _warn_of_unlearnt(inspection: Inspection) -> None:
    """Of classes that are measured, and that nothing in the training split teaches."""
    train = inspection.facts.get("train_split")
    for key, facts in inspection.facts.items():
        if train is None or facts is train:
            continue
        unlearnt = [label for label in train.absent if facts.by_class[label]]
        if unlearnt:
            _logger.warning(
                "%s has %s, of which the training split has nothing%s: they cannot be learnt",
                _where(key, inspection.options),
                _listed({label: facts.by_class[label] for label in unlearnt}, facts.unit),
                "" if train.is_whole else f" ({looked_at(train)})",
            )


def _summary(facts: Facts) -> str:
    classes = f"{len(facts.by_class) - len(facts.absent)} of {len(facts.by_class)} classes"
    if facts.unit == "pixels":
        return f"{looked_at(facts)}: {classes}, {facts.void_share:.1%} void"
    parts = [f"{facts.total:,} objects of {classes}, at most {facts.most} in a picture"]
    if facts.crowds:
        parts.append(f"{facts.crowds:,} crowds")
    if facts.left_out:
        parts.append(f"left out {_listed(facts.left_out)}")
    return f"{looked_at(facts)}: {', '.join(parts)}"


def _where(key: str, options: DataOptions) -> str:
    if key == "validation_split" and options.validation_share is not None:
        key = "validation_share"
    return f"data.{key}={getattr(options, key)}"


def _singular(unit: str) -> str:
    return unit.removesuffix("s")


def _listed(counts: dict[str, int], unit: str = "objects") -> str:
    """`129 objects (cat 120, dog 9)`; of many categories the largest."""
    by_count = sorted(counts.items(), key=lambda pair: -pair[1])
    names = some([f"{name} {count:,}" for name, count in by_count])
    total = sum(counts.values())
    return f"{total:,} {_singular(unit) if total == 1 else unit} ({names})"
