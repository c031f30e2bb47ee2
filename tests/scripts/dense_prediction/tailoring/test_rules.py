"""Settings that follow from the data: each rule says what it should, and no data make a recipe that is refused."""

import dataclasses
import itertools
import json
from typing import Any

import pytest

from dense_prediction.data.inspection.traits import Traits
from dense_prediction.options import flatten
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.tailoring.case import Case, Cost, Device
from dense_prediction.tailoring.requests import Request, own_data_recipes
from dense_prediction.tailoring.table import BEFORE_ALL, OF_PICTURES, OF_STEPS, RULES, ask, markdown
from miniature import ROOT


TASKS = sorted(own_data_recipes())
CPU, MANY_CORES = Device("cpu", cores=1), Device("cpu", cores=64, has_bf16=True)
GPU, EIGHT = Device("cuda", cores=16, memory=20.0, has_bf16=True), Device("cuda", 64, 80.0, True, processes=8)
SLOW, FAST = Cost({"no": 9.0, "bf16": 4.0}, evaluation=3.0), Cost({"no": 0.03, "bf16": 0.02}, 0.01, 2.0, 1.5)


def traits_of(**fields: Any) -> Traits:
    """200 pictures of 480 x 640 with two objects each."""
    plain = Traits(
        pictures=200,
        looked_at=200,
        sizes=[(480, 640)] * 200,
        object_sides=[40.0, 100.0],
        object_shares=[0.07, 0.18],
        most=2,
        class_pixels=[0.7, 0.3],
        kept_by_cells=0.9,
        has_up=True,
    )
    return dataclasses.replace(plain, **fields)


def tailored(
    task: str,
    *typed: str,
    device: Device = CPU,
    cost: Cost = SLOW,
    labels: tuple[str, ...] = ("a", "b"),
    **fields: Any,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a task for pictures of such traits, and the settings that it was made with."""
    traits = traits_of(**fields)
    request = Request(task, "somewhere", typed)
    case = Case(
        task=task,
        labels=labels,
        traits=traits,
        most=traits.most,
        validation=40,
        values=flatten(dataclasses.asdict(request.recipe)),
        typed=frozenset(request.typed),
        device=device,
    )
    first, case = ask(OF_PICTURES, case)
    second, _ = ask(OF_STEPS, dataclasses.replace(case, cost=cost))
    derived = [f"{setting.key}={json.dumps(setting.value)}" for setting in [*first, *second]]
    recipe = load_recipe(request.base, [*request.neutral, *derived, *typed], name=request.name)
    return recipe, {setting.key: setting.value for setting in [*first, *second]}


ODD: dict[str, dict[str, Any]] = {
    "one picture": {"pictures": 1, "looked_at": 1, "sizes": [(300, 400)]},
    "ten pictures": {"pictures": 10, "looked_at": 10, "sizes": [(300, 400)] * 10},
    "a stream": {"pictures": None},
    "many pictures": {"pictures": 118_000},
    "huge": {"sizes": [(6000, 8000)] * 3, "object_shares": [0.0005, 0.001], "object_sides": [4.0, 8.0]},
    "tiny": {"sizes": [(20, 30)] * 5},
    "narrow": {"sizes": [(40, 4000)] * 5},
    "of all sizes": {"sizes": [(100, 200), (500, 300), (2000, 1000)]},
    "crowded": {"most": 1000, "object_shares": [0.01] * 1000, "object_sides": [5.0] * 1000},
    "empty": {"most": 0, "object_shares": [], "object_sides": []},
    "thin": {"kept_by_cells": 0.2, "class_pixels": [0.97, 0.03], "has_up": False},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("task", TASKS)
def test_no_data_make_a_recipe_that_is_refused(task: str, odd: str) -> None:
    for device, cost in itertools.product((CPU, MANY_CORES, GPU, EIGHT), (SLOW, FAST)):
        recipe, _ = tailored(task, device=device, cost=cost, **ODD[odd])
        training, transforms = recipe.training, recipe.transforms
        assert training.steps is not None and recipe.optimization.warmup_steps < training.steps
        assert training.batch_size <= (ODD[odd].get("pictures", 200) or 200)
        assert training.checkpoint_every % training.log_every == 0
        assert training.evaluate_every <= training.steps
        sides = [*(transforms.crop_size or ()), *transforms.shortest_edges]
        assert min(transforms.crop_size or ()) >= 64 and max(sides) <= 1536
        assert all(side % 32 == 0 for side in transforms.crop_size or ())


@pytest.mark.parametrize("labels", [("only",), tuple(f"class {index}" for index in range(5000))], ids=["one", "many"])
@pytest.mark.parametrize("task", ["object_detection", "instance_segmentation"])
def test_any_number_of_classes(task: str, labels: tuple[str, ...]) -> None:
    tailored(task, labels=labels)


@pytest.mark.parametrize(
    "typed",
    [
        ("training.steps=3",),
        ("training.epochs=2",),
        ("training.log_every=7",),
        ("training.checkpoint_every=10",),
        ("optimization.warmup_steps=900",),
        ("training.batch_size=64",),
        ("transforms.crop_size=[96, 96]",),
        ("training.steps=1", "training.evaluate_every=1000"),
        ("head.config={hidden_dim: 64}",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
def test_what_is_typed_wins_and_the_rest_follows(typed: tuple[str, ...], device: Device) -> None:
    if device is GPU and "optimization.warmup_steps=900" in typed:
        typed = ("optimization.warmup_steps=90",)
    recipe, settings = tailored("instance_segmentation", *typed, device=device)
    assert not settings.keys() & {change.partition("=")[0] for change in typed}
    steps = recipe.training.steps
    if "training.epochs=2" in typed:
        assert steps is None and "training.steps" not in settings
        assert recipe.optimization.warmup_steps < 2 * 200 / recipe.training.batch_size
    else:
        assert steps is not None and recipe.optimization.warmup_steps < steps
    assert recipe.training.checkpoint_every % recipe.training.log_every == 0


def test_a_typed_batch_is_what_the_learning_rate_is_for() -> None:
    recipe, _ = tailored("object_detection", "training.batch_size=64", device=GPU, cost=FAST)
    assert recipe.training.samples_per_step == 64
    assert recipe.optimization.learning_rate == 4e-4  # the square root of 64 / 16 times that of 16 pictures


def test_a_typed_number_of_steps_shapes_the_run() -> None:
    recipe, _ = tailored("object_detection", "training.steps=1000")
    assert (recipe.optimization.warmup_steps, recipe.training.evaluate_every) == (50, 125)


def test_on_a_cpu_the_steps_follow_from_their_seconds() -> None:
    slow, _ = tailored("semantic_segmentation", cost=Cost({"no": 2.0}, evaluation=0.1))
    fast, _ = tailored("semantic_segmentation", cost=Cost({"no": 1.0}, evaluation=0.1))
    assert slow.training.steps is not None and fast.training.steps is not None
    minutes = slow.training.steps * slow.training.batch_size * 2.0 / 60 + 4 * 40 * 0.1 / 60
    assert 13 < minutes < 15.5
    assert fast.training.steps == pytest.approx(2 * slow.training.steps, abs=2)


def test_heads_with_queries_get_an_hour_and_a_small_decoder_on_a_cpu() -> None:
    slow, settings = tailored("object_detection", cost=Cost({"no": 3.0}, evaluation=0.1))
    assert slow.training.steps is not None
    assert 55 < slow.training.steps * slow.training.batch_size * 3.0 / 60 < 60
    assert slow.head.config["decoder_layers"] == 3
    assert "decoder_layers" not in tailored("object_detection", device=GPU, cost=FAST)[0].head.config
    warm, _ = tailored("object_detection", "head.checkpoint=PekingU/rtdetr_v2_r50vd")
    assert "decoder_layers" not in warm.head.config, "its layers are taken over"


def test_bf16_on_a_cpu_only_where_it_was_faster() -> None:
    faster, _ = tailored("semantic_segmentation", cost=Cost({"no": 2.0, "bf16": 1.0}))
    slower, _ = tailored("semantic_segmentation", cost=Cost({"no": 2.0, "bf16": 3.0}))
    assert (faster.training.mixed_precision, slower.training.mixed_precision) == ("bf16", "no")


def test_the_batch_is_what_fits_into_the_memory() -> None:
    ample, _ = tailored("object_detection", device=GPU, cost=Cost({"no": 0.1, "bf16": 0.1}, 0.1, fixed=1, each=0.1))
    scarce, _ = tailored("object_detection", device=GPU, cost=Cost({"no": 0.1, "bf16": 0.1}, 0.1, fixed=4, each=5.0))
    assert (ample.training.batch_size, ample.training.gradient_accumulation) == (16, 1)
    assert (scarce.training.batch_size, scarce.training.gradient_accumulation) == (2, 8)
    assert ample.optimization.learning_rate == scarce.optimization.learning_rate


def test_a_device_that_keeps_no_record_of_its_memory_gets_small_batches() -> None:
    unknown, _ = tailored("object_detection", device=Device("mps"), cost=Cost({"no": 0.1}, fixed=0.0, each=0.0))
    assert (unknown.training.batch_size, unknown.training.gradient_accumulation) == (4, 4)


def test_small_objects_make_pictures_large() -> None:
    sides = [
        tailored("object_detection", device=GPU, object_shares=[share] * 10)[0].transforms.crop_size
        for share in (0.3, 0.04, 0.001)
    ]
    assert sides == [(448, 448), (608, 608), (1024, 1024)]


def test_pictures_are_turned_only_where_they_have_no_up_and_nothing_is_left_or_right() -> None:
    def flips(labels: tuple[str, ...], has_up: bool) -> tuple[float, float, str]:
        transforms = tailored("object_detection", labels=labels, has_up=has_up)[0].transforms
        return transforms.flip, transforms.vertical_flip, transforms.rotate

    assert flips(("cell",), False) == (0.5, 0.5, "quarter_turns")
    assert flips(("cell",), True) == (0.5, 0.0, "none")
    assert flips(("left lung", "heart"), False) == (0.0, 0.0, "none")
    assert flips(("cleft", "bright"), True) == (0.5, 0.0, "none")


def test_queries_and_detections_for_the_fullest_picture() -> None:
    recipe, _ = tailored("instance_segmentation", most=300)
    assert recipe.head.config["num_queries"] >= 450
    assert recipe.evaluation.max_detections == 300
    _, settings = tailored("instance_segmentation", most=20)
    assert not settings.keys() & {"head.config.num_queries", "evaluation.max_detections"}


def test_queries_are_no_more_than_positions() -> None:
    recipe, _ = tailored("object_detection", "transforms.crop_size=[128, 128]", most=1000)
    assert recipe.head.config["num_queries"] == 16**2 + 8**2 + 4**2


def test_a_trunk_without_pretrained_weights_is_never_frozen() -> None:
    assert tailored("object_detection")[0].backbone.freeze_trunk
    assert not tailored("object_detection", "backbone.trunk=null")[0].backbone.freeze_trunk
    assert not tailored("object_detection", device=GPU)[0].backbone.freeze_trunk
    assert tailored("semantic_segmentation", device=GPU, kept_by_cells=0.3)[0].backbone.freeze_trunk


def test_a_pretrained_trunk_that_learns_does_so_slowly() -> None:
    def multiplier(*typed: str, device: Device = GPU) -> float:
        return tailored("semantic_segmentation", *typed, device=device)[0].optimization.trunk_lr_multiplier

    assert multiplier() == multiplier("backbone.trunk_weights=w.safetensors") == 0.1
    assert (
        multiplier(device=CPU) == multiplier("backbone.trunk=null") == multiplier("backbone.checkpoint=org/b") == 1.0
    )


def test_label_maps_are_measured_as_they_are_learnt() -> None:
    same, _ = tailored("semantic_segmentation", sizes=[(224, 224)] * 5)
    assert (same.transforms.evaluation_resize, same.transforms.base_size) == ("none", (224, 224))
    large, _ = tailored("semantic_segmentation", sizes=[(3000, 4000)] * 5)
    assert large.transforms.base_size == (576, 768)
    assert (large.transforms.evaluation_resize, large.transforms.shortest_edges) == ("shortest_edge", [576])
    assert large.transforms.longest_edge == 768
    assert tailored("semantic_segmentation", sizes=[(20, 30)] * 5)[0].transforms.base_size == (64, 96)


def test_pictures_are_measured_in_pieces_as_large_as_those_that_are_learnt() -> None:
    large, _ = tailored("semantic_segmentation", sizes=[(512, 512)] * 5)
    assert (large.evaluation.window, large.evaluation.stride) == ((192, 192), (128, 128))
    typed, _ = tailored("semantic_segmentation", "transforms.crop_size=[256, 320]", sizes=[(512, 512)] * 5)
    assert (typed.evaluation.window, typed.evaluation.stride) == ((256, 320), (170, 213))
    small, _ = tailored("semantic_segmentation", sizes=[(224, 224)] * 5)
    assert small.evaluation.is_plain
    assert tailored("object_detection", sizes=[(4000, 4000)] * 5)[0].evaluation.is_plain


def test_every_setting_has_a_reason_and_a_row_in_the_documentation() -> None:
    page = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    assert markdown() in page
    keys = [rule.key for rule in RULES]
    assert len(set(keys)) == len(keys)
    assert all(rule.about for rule in RULES) and all(setting.reason for setting in BEFORE_ALL)
