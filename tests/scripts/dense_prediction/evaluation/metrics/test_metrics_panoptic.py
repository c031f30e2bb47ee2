"""Panoptic quality against a slow reading of COCO's rules, and against torchmetrics where there are no crowds."""

import json
import pickle
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dense_prediction.evaluation.metrics.metric import Annotation
from dense_prediction.evaluation.tasks import TASKS


LABELS = ["car", "person", "sky", "road"]
THINGS = frozenset({0, 1})
VOID = -1
HEIGHT, WIDTH = 4, 6

Pair = tuple[Annotation, Annotation]


def annotation(cells: list[int], labels: list[int], crowds: list[bool] | None = None) -> Annotation:
    content = {
        "segment_map": torch.tensor(cells).view(HEIGHT, WIDTH),
        "labels": torch.tensor(labels, dtype=torch.long),
    }
    return content if crowds is None else content | {"is_crowd": torch.tensor(crowds, dtype=torch.bool)}


def segments(crowds: bool) -> st.SearchStrategy[Annotation]:
    """Up to four segments and void; some may own no pixel."""

    def with_map(columns: list[tuple[int, bool]]) -> st.SearchStrategy[Annotation]:
        cells = st.lists(st.integers(VOID, len(columns) - 1), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH)
        labels, is_crowd = [label for label, _ in columns], [crowd for _, crowd in columns]
        return cells.map(lambda ids: annotation(ids, labels, is_crowd if crowds else None))

    return st.lists(st.tuples(st.integers(0, len(LABELS) - 1), st.booleans()), max_size=4).flatmap(with_map)


def near(truth: Annotation) -> st.SearchStrategy[Pair]:
    """The truth found but for a few pixels: most segments match, at an IoU round one half when they are small."""
    flips = st.dictionaries(
        st.integers(0, HEIGHT * WIDTH - 1), st.integers(VOID, len(truth["labels"]) - 1), max_size=8
    )

    def found(changes: dict[int, int]) -> Pair:
        cells = truth["segment_map"].flatten().clone()
        for place, segment in changes.items():
            cells[place] = segment
        return annotation(cells.tolist(), truth["labels"].tolist()), truth

    return flips.map(found)


pairs = st.one_of(segments(crowds=True).flatmap(near), st.tuples(segments(crowds=False), segments(crowds=True)))
ALL_CROWD = annotation([0] * 12 + [1] * 12, [0, 1], [True, True])
ONE_CAR = annotation([0] * HEIGHT * WIDTH, [0])


def by_the_rules(images: list[Pair]) -> dict[int, list[float]]:
    """Class -> IoU sum, matches, unmatched found, unmatched true, from sets of pixels, one pair at a time."""
    counts: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    for found, truth in images:
        void = pixels(truth, VOID)
        crowds: dict[int, set[int]] = defaultdict(set)
        for true, label in enumerate(truth["labels"].tolist()):
            if truth["is_crowd"][true]:
                crowds[label] |= pixels(truth, true)
        matched: set[int] = set()
        for true, label in enumerate(truth["labels"].tolist()):
            if truth["is_crowd"][true]:
                continue
            for other, other_label in enumerate(found["labels"].tolist()):
                mine, theirs = pixels(truth, true), pixels(found, other)
                union = len((mine | theirs) - (theirs & void))
                if label == other_label and union and len(mine & theirs) / union > 0.5:
                    matched.add(other)
                    counts[label][0] += len(mine & theirs) / union
                    counts[label][1] += 1
                    break
            else:
                counts[label][3] += 1
        for other, label in enumerate(found["labels"].tolist()):
            area = pixels(found, other)
            if other not in matched and area and not len(area & (void | crowds[label])) / len(area) > 0.5:
                counts[label][2] += 1
    return {label: values for label, values in counts.items() if any(values[1:])}


def pixels(annotation: Annotation, segment: int) -> set[int]:
    return set((annotation["segment_map"].flatten() == segment).nonzero().flatten().tolist())


def qualities(counts: list[list[float]]) -> list[float | None]:
    """Means over the classes of PQ, SQ and RQ."""
    if not counts:
        return [None, None, None]
    each = [
        (iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0.0, tp / (tp + fp / 2 + fn / 2))
        for iou, tp, fp, fn in counts
    ]
    return [sum(column) / len(each) for column in zip(*each, strict=True)]


def measure(images: list[Pair]) -> dict[str, Any]:
    """The numbers of images that two processes counted."""
    metric, other = (TASKS["panoptic_segmentation"].metric(LABELS, THINGS) for _ in range(2))
    for index, pair in enumerate(images):
        (metric, other)[index % 2].update(*pair)
    metric.merge(pickle.loads(pickle.dumps(other.state)))
    return metric.compute()


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pairs, max_size=3))
@example([(annotation([VOID] * 24, []), annotation([VOID] * 24, [], []))])
@example([(annotation([VOID] * 24, []), annotation([0] * 24, [0], [False]))])
@example([(ONE_CAR, ALL_CROWD)])
@example([(ONE_CAR, annotation([0] * 12 + [VOID] * 12, [0], [False]))])
@example([(ONE_CAR, annotation([0] * 12 + [1] * 12, [0, 1], [False, True]))])
@example([(ONE_CAR, annotation([0] * 12 + [1] * 6 + [2] * 6, [0, 0, 0], [True, True, False]))])
def test_panoptic_quality_follows_the_rules(images: list[Pair]) -> None:
    numbers = measure(images)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    counts = by_the_rules(images)
    groups = {"": set(counts), "things_": set(counts) & THINGS, "stuff_": set(counts) - THINGS}
    for prefix, chosen in groups.items():
        names = ("panoptic_quality", "segmentation_quality", "recognition_quality")
        for name, expected in zip(names, qualities([counts[label] for label in sorted(chosen)]), strict=True):
            assert numbers[prefix + name] == pytest.approx(expected, abs=1e-12), prefix + name
    for label, name in enumerate(LABELS):
        expected = qualities([counts[label]])[0] if label in counts else None
        assert numbers["class_panoptic_quality"][name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (annotation([0] * 12 + [VOID] * 12, [0], [False]), 1.0),  # void pixels leave the union
        (annotation([0] * 11 + [VOID] * 13, [1], [False]), None),  # mostly void: forgiven
        (annotation([0] * 12 + [VOID] * 12, [1], [False]), 0.0),  # half is not more than half
        (annotation([0] * 13 + [1] * 11, [0, 1], [True, False]), None),  # mostly a crowd of its class: forgiven
        (annotation([0] * 13 + [1] * 11, [1, 0], [True, False]), 0.0),  # a crowd of another class forgives nothing
        (annotation([0] * 12 + [1] * 12, [0, 0], [False, False]), 0.0),  # IoU of exactly one half is no match
        (annotation([0] * 24, [0], [True]), None),  # a crowd is no match
    ],
)
def test_one_segment_over_the_whole_picture(truth: Annotation, expected: float | None) -> None:
    assert measure([(ONE_CAR, truth)])["class_panoptic_quality"]["car"] == expected


def as_categories(annotation: Annotation) -> torch.Tensor:
    """(1, H, W, 2): class and segment of each pixel; class 99 is void."""
    labels = torch.cat([annotation["labels"], torch.tensor([99])])
    return torch.stack([labels[annotation["segment_map"]], annotation["segment_map"]], dim=-1)[None]


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_equals_torchmetrics_without_crowds(seed: int) -> None:
    detection = pytest.importorskip("torchmetrics.detection")
    reference = detection.PanopticQuality(
        {0, 1}, {2, 3}, allow_unknown_preds_category=True, return_sq_and_rq=True, return_per_class=True
    )
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(4):
        # Blocks of 2 x 2 pixels; every stuff class is one segment, as torchmetrics wants it.
        cells = torch.randint(VOID, 5, (HEIGHT // 2, WIDTH // 2), generator=generator)
        truth = annotation(cells.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten().tolist(), [0, 0, 1, 2, 3])
        noise = torch.rand(HEIGHT, WIDTH, generator=generator) < 0.25
        # No void is found: torchmetrics would take it out of the union, COCO's script does not.
        other = torch.randint(0, 5, (HEIGHT, WIDTH), generator=generator)
        kept = (truth["segment_map"] != VOID) & ~noise
        found = annotation(truth["segment_map"].where(kept, other).flatten().tolist(), [0, 0, 1, 2, 3])
        reference.update(as_categories(found), as_categories(truth))
        present = torch.tensor([bool(pixels(truth, segment)) for segment in range(5)])
        positions = torch.cat([present.cumsum(0) - 1, torch.tensor([VOID])])
        compact = {"segment_map": positions[truth["segment_map"]], "labels": truth["labels"][present]}
        images.append((found, compact | {"is_crowd": torch.zeros(int(present.sum()), dtype=torch.bool)}))
    numbers = measure(images)
    expected = reference.compute()[:, 0].tolist()
    actual = [0.0 if value is None else value for value in numbers["class_panoptic_quality"].values()]
    assert actual == pytest.approx(expected, abs=1e-6)
    assert numbers["panoptic_quality"] > 0


@pytest.mark.parametrize(
    ("cells", "labels", "message"),
    [
        ([1] * 24, [0], r"found segments hold ids 1..1, allowed are -1..0"),
        ([-2] * 24, [0], r"found segments hold ids -2..-2"),
        ([0] * 24, [4], r"found segments hold ids 4..4, allowed are 0..3"),
    ],
)
def test_ids_that_do_not_exist_are_refused(cells: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure([(annotation(cells, labels), ALL_CROWD)])


def test_maps_of_two_sizes_are_refused() -> None:
    found = {"segment_map": torch.zeros(2, 2, dtype=torch.long), "labels": torch.tensor([0])}
    with pytest.raises(ValueError, match=r"found segment_map is \(2, 2\) but the true one is \(4, 6\)"):
        measure([(found, ALL_CROWD)])
