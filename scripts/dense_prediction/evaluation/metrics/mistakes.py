"""Which class is taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from ...drawing.annotations import MIN_SCORE
from .average_precision import ImageRecord, Kind, Record


MATCH = 0.5
"""An object is where another one is if their IoU is at least that."""

BACKGROUND, MISSED = "(background)", "(missed)"
"""What is true where something was found that is not there, and what was found of a true object that was not."""

RULES = {
    "pixels": "labelled pixels",
    "objects": f"objects of scores from {MIN_SCORE} on, matched at an IoU of {MATCH} or more; crowds do not count",
}


class Mistake(NamedTuple):
    """So much of `true`, a share of all of it, were found as `found`."""

    true: str
    found: str
    amount: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """How much of each true class was found as each class.

    Attributes:
        unit: what is counted, "pixels" or "objects".
        true: what the rows are called; of objects the last one is `BACKGROUND`.
        found: what the columns are called; the last one may be `MISSED`.
        counts: (true, found) integers.
    """

    unit: str
    true: Sequence[str]
    found: Sequence[str]
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """(true, found) float64: of all of a true class; 0 where there is nothing of it."""
        return self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)

    def mistakes(self) -> list[Mistake]:
        """All that was found as something else, the most frequent first."""
        shares = self.shares
        wrong = [(row, column) for row, column in np.argwhere(self.counts).tolist() if self._is_wrong(row, column)]
        wrong.sort(key=lambda place: -self.counts[place])
        return [
            Mistake(self.true[row], self.found[column], int(self.counts[row, column]), float(shares[row, column]))
            for row, column in wrong
        ]

    def plain(self) -> dict[str, Any]:
        """As results have it: counts and shares that are not 0, by what is true and what was found."""
        kept = [(row, np.flatnonzero(self.counts[row])) for row in range(len(self.true)) if self.counts[row].any()]
        tables = {"counts": self.counts, "shares": self.shares.round(4)}
        return {"unit": self.unit, "rule": RULES[self.unit], "true": [*self.true], "found": [*self.found]} | {
            name: {
                self.true[row]: {self.found[at]: table[row, at].item() for at in places.tolist()}
                for row, places in kept
            }
            for name, table in tables.items()
        }

    @classmethod
    def of_plain(cls, content: Mapping[str, Any]) -> "Confusion":
        """Read again what `plain` has written."""
        true, found = content["true"], content["found"]
        counts = np.array([[content["counts"].get(row, {}).get(name, 0) for name in found] for row in true])
        return cls(content["unit"], true, found, counts)

    def _is_wrong(self, row: int, column: int) -> bool:
        return row != column or self.true[row] == BACKGROUND


def match_objects(images: Sequence[ImageRecord], num_labels: int, kind: Kind) -> np.ndarray:
    """Count (true class, found class) pairs of objects that lie in one place.

    The best scored objects choose first. Pairs of one class come before all others, so that a rider is not taken for
    a horse where both are found. What lies in a crowd counts for nothing.

    Args:
        kind: `bbox` compares boxes, `segm` masks.

    Returns:
        (num_labels + 1, num_labels + 1) int64, the last row of what was found where nothing is, the last column of
        what was missed.
    """
    counts = np.zeros((num_labels + 1, num_labels + 1), dtype=np.int64)
    for image in images:
        for true, found in _pairs(image, kind, nothing=num_labels):
            counts[true, found] += 1
    return counts


def _pairs(image: ImageRecord, kind: Kind, nothing: int) -> list[tuple[int, int]]:
    """The classes of each true object and of what was found in its place, either of which may be `nothing`."""
    scores = np.array(image.found["score"])
    kept = np.flatnonzero(scores >= MIN_SCORE)
    crowd = np.array(image.truth["iscrowd"], dtype=bool)
    true, found = np.array(image.truth["category_id"]), np.array(image.found["category_id"])[kept]
    overlaps = _overlaps(image, kind, kept)
    rows, columns = np.nonzero((overlaps >= MATCH) & ~crowd)
    order = np.lexsort((-overlaps[rows, columns], -scores[kept][rows], found[rows] != true[columns]))
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in partners and column not in taken:
            partners[row] = column
            taken.add(column)
    pairs = [(int(true[column]), int(found[row])) for row, column in partners.items()]
    in_crowds = overlaps[:, crowd].max(axis=1, initial=0) >= MATCH
    pairs += [(nothing, int(found[row])) for row in range(len(kept)) if row not in partners and not in_crowds[row]]
    missed = np.setdiff1d(np.flatnonzero(~crowd), list(taken)).astype(int)
    return pairs + [(int(label), nothing) for label in true[missed]]


def _overlaps(image: ImageRecord, kind: Kind, kept: np.ndarray) -> np.ndarray:
    """(found, true) IoU; of a crowd the share of what was found that lies in it."""
    shape = len(kept), len(image.truth["category_id"])
    if 0 in shape:
        return np.zeros(shape)
    found, true = ([_shapes(image.found, kind)[place] for place in kept], _shapes(image.truth, kind))
    return np.asarray(coco_mask.iou(found, true, image.truth["iscrowd"]))


def _shapes(record: Record, kind: Kind) -> list[Any]:
    return record["bbox" if kind == "bbox" else "segmentation"]
