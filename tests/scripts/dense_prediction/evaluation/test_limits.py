"""Nothing is cut off in silence: more objects than a head finds, than are kept, or than are measured."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

import predict
from dense_prediction import load_model
from dense_prediction.batches.types import Batch, PredictionOptions
from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.inspection.findings import warn_of_limits
from dense_prediction.data.inspection.looking import Facts
from dense_prediction.errors import UserError
from dense_prediction.evaluation.metrics.detection import DetectionMetric, InstanceMetric
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.experiment import Experiment
from dense_prediction.models.building import queries_of
from dense_prediction.models.heads import find_head, head_names
from dense_prediction.recipes.loading import load_recipe
from miniature_heads import FIELDS, build
from scripts_in_process import last_error, run_script, save_model


COUNT = 150
DETECTION, INSTANCES = "object_detection", "instance_segmentation"


def many(side: int = 400) -> tuple[dict[str, Any], dict[str, Any]]:
    """So many boxes of 8 x 8 pixels, and a model that finds each of them."""
    places = torch.arange(COUNT)
    corners = torch.stack([places % 20 * 12, places // 20 * 12], dim=1).float()
    boxes = torch.cat([corners, corners + 8], dim=1)
    labels = torch.zeros(COUNT, dtype=torch.int64)
    truth = {"boxes": boxes, "labels": labels, "is_crowd": labels.bool(), "areas": torch.full((COUNT,), 64.0)}
    found = {"boxes": boxes, "labels": labels, "scores": torch.linspace(1, 0.5, COUNT)}
    return found, truth | {"image_id": 1, "original_size": (side, side), "name": "many"}


def test_average_precision_of_more_detections_has_another_name() -> None:
    """COCO's own numbers, with their names, are those of the best 100."""
    found, truth = many()
    numbers = {}
    for limit in (100, COUNT):
        metric = DetectionMetric(["cat"], limit)
        metric.update(found, truth)
        numbers[limit] = metric.compute()
        assert metric.primary in numbers[limit]
    assert numbers[100]["box_ap"] == pytest.approx(0.66, abs=0.02)
    assert numbers[100]["box_ar100"] == pytest.approx(100 / COUNT)
    assert DetectionMetric.primary == "box_ap"
    whole = numbers[COUNT]
    assert (whole["box_ap_at_150"], whole["box_ar150"], whole["class_box_ap_at_150"]) == (1.0, 1.0, {"cat": 1.0})
    assert not whole.keys() & numbers[100].keys(), "no number of one limit is taken for one of the other"
    assert InstanceMetric(["cat"], 7).primary == "mask_ap_at_7"
    assert InstanceMetric(["cat"]).primary == "mask_ap"


@pytest.mark.parametrize("name", [name for name in head_names() if DETECTION in find_head(name).tasks])
def test_more_than_100_boxes_can_be_kept(name: str) -> None:
    """Also where transformers keeps 100 unless it is asked."""
    generator = torch.Generator().manual_seed(0)
    output = SimpleNamespace(
        logits=torch.randn(1, COUNT, 4, generator=generator), pred_boxes=torch.rand(1, COUNT, 4, generator=generator)
    )
    batch: Batch = {
        "pixel_values": torch.zeros(1, 3, 64, 64),
        "pixel_mask": torch.ones(1, 64, 64, dtype=torch.int64),
        "targets": [{"original_size": (64, 64)}],
    }
    kept = {}
    for limit in (30, 100, COUNT):
        (kept[limit],) = find_head(name).predict(
            output, batch, TASKS[DETECTION], PredictionOptions(max_detections=limit)
        )
    # Softmax leaves out queries that see nothing.
    assert [len(found["scores"]) for found in kept.values()] == [30, 100, COUNT]
    for limit in (30, 100):
        assert torch.equal(kept[limit]["scores"], kept[COUNT]["scores"][:limit])
        assert torch.equal(kept[limit]["boxes"], kept[COUNT]["boxes"][:limit])


def test_queries_of_every_head(backbone_file: Path) -> None:
    for name in head_names():
        queries = queries_of(build(name, find_head(name).tasks[0], backbone_file))
        fields = FIELDS[name]
        wanted = fields.get("num_queries") or fields.get("decoder_config", {}).get("num_queries")
        assert (queries and queries[1]) == wanted, name
        assert queries is None or queries[0].endswith("num_queries")
    two_stage = SimpleNamespace(config=SimpleNamespace(two_stage=True, two_stage_num_proposals=9, num_queries=3))
    assert queries_of(two_stage) == ("two_stage_num_proposals", 9)


def facts(most: int, unit: str = "objects") -> Facts:
    fields = {
        "bad": 0,
        "by_class": {},
        "left_out": {},
        "crowds": 0,
        "void_share": 0.0,
        "values": [],
        "unknown": ([], ""),
    }
    return Facts(pictures=2, looked_at=2, unit=unit, most=most, **fields)


@pytest.mark.parametrize(
    ("found", "queries", "most", "expected"),
    [
        ({"train_split": facts(7)}, ("num_queries", 7), 100, []),
        (
            {"train_split": facts(8)},
            ("decoder_config.num_queries", 7),
            None,
            ["up to 8 objects in a picture .*7 queries and finds no more: .*head.config.decoder_config.num_queries=8"],
        ),
        ({"train_split": facts(101)}, None, 100, []),
        (
            {"validation_split": facts(101)},
            None,
            100,
            ["data.validation_split=validation: up to 101 .*best 100 predictions .*evaluation.max_detections=101 all"],
        ),
        ({"train_split": facts(3, "pixels")}, ("num_queries", 2), None, ["up to 3 classes in a picture .*2 queries"]),
        (
            {"train_split": facts(9), "test_split": facts(12)},
            ("num_queries", 8),
            10,
            ["train.* 9 .*8 queries", "test.* 12 .*8 queries", "test.* 12 .*best 10 "],
        ),
    ],
    ids=range(6),
)
def test_limits_are_said_with_both_numbers(
    found: dict[str, Facts],
    queries: tuple[str, int] | None,
    most: int | None,
    expected: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_limits(found, CocoOptions(path="x", test_split="test"), queries, most)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(expected)
    for message, pattern in zip(messages, expected, strict=True):
        assert re.search(pattern, message), message


@pytest.fixture
def crowded(tmp_path: Path, recipe_file: Path) -> list[str]:
    """One picture with nine objects, for heads of six queries."""
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    box = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 36}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [box | {"id": place, "bbox": [7 * place, 0, 6, 6]} for place in range(9)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    both = {"train": "a.json", "validation": "a.json"}
    return [
        "task=object_detection",
        "head.name=deformable_detr",
        f"head.config={json.dumps(FIELDS['deformable_detr'])}",
        f"data.path={tmp_path}",
        "data.format=coco",
        f"data.annotations={json.dumps(both)}",
        f"data.images={json.dumps(dict.fromkeys(both, '.'))}",
        "data.max_validation_samples=null",
    ]


def test_the_look_at_the_data_meets_the_limits_of_the_run(
    crowded: list[str], recipe_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first step."""
    experiment = Experiment(load_recipe(recipe_file, [*crowded, "evaluation.max_detections=5"]))
    experiment.look_at_data("train_split", "validation_split")
    experiment.build_model()
    assert "up to 9 objects in a picture (looked at all 1 pictures), but the head has 6 queries" in caplog.text
    assert "evaluation.max_detections=9" in caplog.text
    assert experiment.viewer.options.max_detections == 5
    assert experiment.new_metric().primary == "box_ap_at_5"


def test_tasks_without_single_objects_have_no_such_limit(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="max_detections=5 is for boxes and instances, not for task=semantic_segmenta"):
        Experiment(load_recipe(recipe_file, ["evaluation.max_detections=5"]))


def test_the_evaluation_is_limited(
    crowded: list[str], recipe_file: Path, backbone_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_model(tmp_path / "model", DETECTION, backbone_file, ["cat"])
    arguments = ["--model", model, "--output", tmp_path / "numbers.json", *crowded]
    assert run_script(evaluate, recipe_file, *arguments, "--max-detections", "3") == 0
    written = json.loads((tmp_path / "numbers.json").read_text())
    assert written["metrics"].keys() >= {"box_ap_at_3", "box_ar3"}
    assert "box_ap" not in written["metrics"]
    assert "but the best 3 predictions alone count" in caplog.text
    assert "has 6 queries" in caplog.text
    assert run_script(evaluate, recipe_file, *arguments) == 0
    assert json.loads((tmp_path / "numbers.json").read_text())["metrics"].keys() >= {"box_ap", "box_ar100"}


@pytest.mark.parametrize("task", [DETECTION, INSTANCES])
def test_predict_says_what_it_leaves_out(
    task: str,
    backbone_file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = save_model(tmp_path / "model", task, backbone_file)
    picture = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    arguments = [model, picture, "--score-threshold", "0"]
    assert run_script(predict, *arguments, "--max-detections", "2") == 0
    found = json.loads((tmp_path / "photo.prediction.json").read_text())["annotations"]
    assert len(found) == 2
    assert (
        f"{picture}: the 2 best objects are kept and there may be more: raise max_detections (--max-det" in caplog.text
    )

    caplog.clear()
    assert run_script(predict, *arguments) == 0
    more = json.loads((tmp_path / "photo.prediction.json").read_text())["annotations"]
    assert task == INSTANCES or more[:2] == found, "of instances the mask's quality orders those that were kept"
    assert 2 < len(more) < 100
    assert not caplog.records
    assert run_script(predict, *arguments, "--max-detections", "0") == 1
    assert "must be 1 or more, got 0" in last_error(capsys)


def test_python_says_it_too(backbone_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_model(tmp_path / "model", DETECTION, backbone_file)
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    assert len(load_model(folder, "cpu", 0.0, max_detections=1).predict(noise)["scores"]) == 1
    assert "a picture of 80 x 64 pixels: the 1 best objects are kept" in caplog.text
    with pytest.raises(UserError, match="max_detections=0: keep at least one"):
        load_model(folder, "cpu", max_detections=0)
