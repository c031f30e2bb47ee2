"""The metric scripts through `evaluate.load`, in a process of their own: offline, elsewhere, without our path."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_metrics import LABELS, random_maps
from test_metrics_detection import LABELS as OBJECTS
from test_metrics_detection import Pair, random_pairs, without_predictions, without_truth
from test_metrics_panoptic import LABELS as SEGMENTS
from test_metrics_panoptic import VOID, annotation, measure

from dense_prediction.evaluation import metrics
from dense_prediction.evaluation.metrics.average_precision import encode_masks
from dense_prediction.evaluation.metrics.metric import Annotation
from dense_prediction.evaluation.tasks import TASKS
from miniature import ROOT


PROGRAM = """
import json, pickle, socket, sys

def no_network(*arguments, **keywords):
    raise AssertionError("the network was asked for")

socket.socket.connect = no_network
import evaluate

answers = []
for path, batches, options in pickle.load(open(sys.argv[1], "rb")):
    metric = evaluate.load(path)
    for predictions, references in batches:
        metric.add_batch(predictions=predictions, references=references)
    answers.append(metric.compute(**options))
assert "dense_prediction" not in sys.modules
print(json.dumps(answers, allow_nan=False))
"""


@pytest.fixture(scope="module")
def maps() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predictions and targets of several sizes."""
    return [*(random_maps(seed) for seed in range(3)), tuple(part[:, :4, :6] for part in random_maps(3))]


@pytest.fixture(scope="module")
def objects() -> list[Pair]:
    """Images with and without crowds, the last one without any object, true or found."""
    pairs = random_pairs(0)
    found, truth = pairs[0]
    return [*pairs, without_predictions(without_truth((found, truth | {"image_id": 1})))]


@pytest.fixture(scope="module")
def segments() -> list[Pair]:
    """Pictures with void and a crowd."""
    truth = annotation([0] * 9 + [1] * 9 + [2] * 4 + [VOID] * 2, [0, 2, 0], [False, False, True])
    return [(annotation([0] * 11 + [1] * 13, [0, 2]), truth), (annotation([0] * 20 + [VOID] * 4, [1]), truth)]


@pytest.fixture(scope="module")
def answers(
    maps: list[tuple[torch.Tensor, torch.Tensor]],
    objects: list[Pair],
    segments: list[Pair],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """What the scripts say, asked for by their paths from another working directory."""
    folder, scripts = tmp_path_factory.mktemp("elsewhere"), ROOT / "scripts" / "metrics"
    semantic = [([*prediction.numpy()], [*target.numpy()]) for prediction, target in maps]
    boxes, panoptic = ([tuple([as_lists(side)] for side in pair) for pair in pairs] for pairs in (objects, segments))
    masks = [tuple([with_masks(side)] for side in pair) for pair in objects]
    questions = [
        (str(scripts / "semantic_iou"), semantic, {"num_labels": len(LABELS)}),
        (str(scripts / "box_ap" / "box_ap.py"), boxes, {"num_labels": len(OBJECTS)}),
        (str(scripts / "mask_ap"), masks, {"num_labels": len(OBJECTS)}),
        (str(scripts / "pq"), panoptic, {"num_labels": len(SEGMENTS)}),
    ]
    (folder / "questions.pkl").write_bytes(pickle.dumps(questions))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    command = [sys.executable, "-c", PROGRAM, "questions.pkl"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def as_lists(annotation: Annotation) -> dict[str, Any]:
    columns = ("boxes", "labels", "scores", "is_crowd", "areas", "segment_map")
    return {key: annotation[key].tolist() for key in columns if key in annotation}


def with_masks(annotation: Annotation) -> dict[str, Any]:
    columns = {key: value for key, value in as_lists(annotation).items() if key != "boxes"}
    encoded = encode_masks(annotation["masks"])
    return columns | {"masks": [mask | {"counts": mask["counts"].decode()} for mask in encoded]}


def test_semantic_iou_gives_our_numbers(
    answers: list[dict[str, Any]], maps: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    ours = TASKS["semantic_segmentation"].metric(LABELS, frozenset())
    for prediction, target in maps:
        ours.update({"semantic_map": prediction}, {"semantic_map": target})
    expected, numbers = ours.compute(), answers[0]
    for name in ("mean_iou", "pixel_accuracy", "mean_class_accuracy"):
        assert numbers[name] == expected[name]
    for name in ("class_iou", "class_accuracy"):
        assert numbers[name] == list(expected[name].values())
    assert None in numbers["class_iou"], "JSON has no NaN"


def test_box_ap_gives_our_numbers(answers: list[dict[str, Any]], objects: list[Pair]) -> None:
    ours = TASKS["object_detection"].metric(OBJECTS, frozenset())
    for pair in objects:
        ours.update(*pair)
    expected, numbers = ours.compute(), dict(answers[1])
    for name in ("ap", "ap50", "ar100"):
        assert numbers.pop(f"class_{name}") == pytest.approx(list(expected.pop(f"class_box_{name}").values()))
    assert {f"box_{name}": value for name, value in numbers.items()} == pytest.approx(expected)
    assert 0 < expected["box_ap"] < 1


def test_mask_ap_gives_our_numbers(answers: list[dict[str, Any]], objects: list[Pair]) -> None:
    ours = TASKS["instance_segmentation"].metric(OBJECTS, frozenset())
    for pair in objects:
        ours.update(*pair)
    expected, numbers = ours.compute(), dict(answers[2])
    for name in ("ap", "ap50", "ar100"):
        assert numbers.pop(f"class_{name}") == pytest.approx(list(expected[f"class_mask_{name}"].values()))
    for name, value in numbers.items():
        assert value == pytest.approx(expected[f"mask_{name}"]), name
    assert 0 < expected["mask_ap"] < 1


def test_pq_gives_our_numbers(answers: list[dict[str, Any]], segments: list[Pair]) -> None:
    expected, numbers = measure(segments), answers[3]
    for short, name in (("pq", "panoptic_quality"), ("sq", "segmentation_quality"), ("rq", "recognition_quality")):
        assert numbers[short] == expected[name]
    assert numbers["class_pq"] == list(expected["class_panoptic_quality"].values())
    assert 0 < numbers["pq"] < 1


@pytest.mark.parametrize(
    "link",
    [
        "semantic_iou/confusion.py",
        "box_ap/average_precision.py",
        "mask_ap/average_precision.py",
        "pq/panoptic_quality.py",
    ],
)
def test_the_scripts_compute_with_our_code(link: str) -> None:
    beside = ROOT / "scripts" / "metrics" / link
    assert beside.resolve() == Path(metrics.__file__).parent / beside.name
