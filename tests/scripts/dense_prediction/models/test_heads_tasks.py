"""Every head in each of its tasks: targets, losses, and predictions in the pixels of the original image."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d
from transformers import DFineConfig, PreTrainedModel
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

from dense_prediction.batches import geometry
from dense_prediction.batches.geometry import Geometry
from dense_prediction.batches.types import Batch, Prediction, PredictionOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model, encoder_of, task_of, things_of
from dense_prediction.models.heads import find_head, head_of
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.models.real_time import count_positions, smallest_side
from miniature_heads import FIELDS, HEADS_AND_TASKS, LABELS, SIZES, THINGS, build, draw_batch
from modeling_vit_comer import restore_heads


DETECTORS = [name for name, task in HEADS_AND_TASKS if task == "object_detection"]
SEE_PADDING_AS_IMAGE = ["rt_detr", "rt_detr_v2", "d_fine", "deimv2"]
DETECTION = TASKS["object_detection"]
OPTIONS = PredictionOptions(things=frozenset(THINGS))
DEFORMABLE = ["mask2former", "deformable_detr", *SEE_PADDING_AS_IMAGE]
SURE = 20.0


def loss_of(name: str, task: str, backbone_file: Path, empty: tuple[bool, bool]) -> tuple[Any, torch.Tensor]:
    model = build(name, task, backbone_file).train()
    loss = model(**find_head(name).loss_inputs(draw_batch(task, empty), TASKS[task])).loss
    loss.backward()
    return model, loss


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_a_loss_reaches_the_backbone(name: str, task: str, backbone_file: Path) -> None:
    model, loss = loss_of(name, task, backbone_file, (False, False))
    assert loss.isfinite()
    assert all(parameter.grad.any() for parameter in encoder_of(model).trunk.parameters())
    assert (task_of(model), things_of(model)) == (task, frozenset(THINGS))
    assert head_of(model) is find_head(name)
    assert encoder_of(model).out_features == find_head(name).out_features


@pytest.mark.parametrize("empty", [(True, False), (True, True)])
@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_images_without_objects_train(name: str, task: str, empty: tuple[bool, bool], backbone_file: Path) -> None:
    if name == "upernet" and all(empty):
        pytest.skip("a batch of nothing but void has no loss, 0 / 0; training crops hold labelled pixels")
    model, loss = loss_of(name, task, backbone_file, empty)
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "task", "steps"),
    [
        ("mask2former", "instance_segmentation", 25),
        ("maskformer", "panoptic_segmentation", 25),
        ("deformable_detr", "object_detection", 25),
        ("conditional_detr", "object_detection", 60),
        ("deimv2", "object_detection", 60),
    ],
)
def test_the_loss_falls_on_one_batch(name: str, task: str, steps: int, backbone_file: Path) -> None:
    model = build(name, task, backbone_file).train()
    inputs = find_head(name).loss_inputs(draw_batch(task), TASKS[task])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("name", SEE_PADDING_AS_IMAGE)
def test_images_with_fewer_positions_than_queries_are_refused(name: str, backbone_file: Path) -> None:
    """The last refusal is torch's own, which says less."""
    inputs = find_head(name).loss_inputs(draw_batch("object_detection"), DETECTION)
    few, many = (detector(name, queries, backbone_file) for queries in (126, 127))
    assert count_positions(few.config, (64, 96)) == 6 * 21 == 126
    assert few(**inputs).loss.isfinite()
    with pytest.raises(UserError, match=r"64 x 96 pixels.* 126 positions for the head's 127 queries: .* 96 x 96 is"):
        many(**inputs)
    many._forward_pre_hooks.clear()
    with pytest.raises(RuntimeError, match="selected index k out of range"):
        many(**inputs)


def detector(name: str, queries: int, backbone_file: Path) -> PreTrainedModel:
    head = HeadOptions(name=name, config=FIELDS[name] | {"num_queries": queries})
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(name).out_features)
    return build_model(head, backbone, LABELS, DETECTION)


@pytest.mark.parametrize(("queries", "side"), [(21, 32), (22, 64), (84, 64), (300, 128)])
def test_the_smallest_square_image(queries: int, side: int) -> None:
    assert smallest_side(DFineConfig(num_queries=queries)) == side
    assert find_head("detr").smallest_side is None


def test_void_never_becomes_a_class() -> None:
    """Neither in the image nor in its padding."""
    size = (2, 3)
    batch = {
        "pixel_values": torch.zeros(2, 3, 2, 3),
        "pixel_mask": torch.ones(2, *size),
        "targets": [
            {"semantic_map": torch.tensor([[0, 255], [2, 2]])},
            {"semantic_map": torch.tensor([[255, 1, 1], [1, 1, 1]])},
        ],
    }
    dense = find_head("upernet").targets(batch, TASKS["semantic_segmentation"])["labels"]
    assert dense.tolist() == [[[0, 255, 255], [2, 2, 255]], [[255, 1, 1], [1, 1, 1]]]
    masks = find_head("mask2former").targets(batch, TASKS["semantic_segmentation"])
    assert [ids.tolist() for ids in masks["class_labels"]] == [[0, 2], [1]]
    assert masks["mask_labels"][0].tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 0]]]
    assert masks["mask_labels"][1].tolist() == [[[0, 1, 1], [1, 1, 1]]]


@pytest.mark.parametrize("task", ["instance_segmentation", "panoptic_segmentation"])
def test_masks_are_padded_with_their_image(task: str) -> None:
    targets = find_head("mask2former").targets(draw_batch(task), TASKS[task])
    shown = draw_batch("instance_segmentation")["targets"]
    for masks, labels, target, (height, width) in zip(*targets.values(), shown, SIZES, strict=True):
        assert masks.shape == (2, 64, 96)
        assert torch.equal(masks[:, :height, :width].bool(), target["masks"])
        assert not masks[:, height:].any() and not masks[:, :, width:].any()
        assert labels.tolist() == [1, 2]


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_are_relative_to_what_the_head_takes_for_the_image(name: str) -> None:
    batch = draw_batch("object_detection")
    labels = find_head(name).loss_inputs(batch, DETECTION)["labels"][1]
    height, width = (64, 96) if name in SEE_PADDING_AS_IMAGE else (48, 70)
    left, top, right, bottom = 4, 0, 35, 24
    expected = [(left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, 24 / height]
    assert labels["boxes"][0].tolist() == pytest.approx(expected)
    assert labels["class_labels"].dtype == torch.int64


def enlarged(batch: Batch, factors: tuple[float, float] = (2.0, 1.5)) -> Batch:
    """The same batch of images that were this many times as high and wide before they were resized."""
    sizes = [tuple(round(side * factor) for side, factor in zip(size, factors)) for size in SIZES]
    targets = [target | {"original_size": size} for target, size in zip(batch["targets"], sizes)]
    return batch | {"targets": targets}


def perfect_boxes(name: str, batch: Batch) -> DetrObjectDetectionOutput:
    """Two queries that are sure and right, in the wrong order, before two that see nothing."""
    labels = find_head(name).loss_inputs(batch, DETECTION)["labels"]
    logits = torch.full((2, 4, len(LABELS) + (name == "detr")), -SURE)
    boxes = torch.full((2, 4, 4), 0.5)
    for image, target in enumerate(labels):
        boxes[image, :2] = target["boxes"].flip(0)
        logits[image, 0, target["class_labels"][1]] = 2.0
        logits[image, 1, target["class_labels"][0]] = 3.0
    if name == "detr":
        logits[:, 2:, -1] = SURE
        logits[:, :2, -1] = 0.0
    return DetrObjectDetectionOutput(logits=logits, pred_boxes=boxes)


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_come_back_in_original_pixels(name: str) -> None:
    batch = enlarged(draw_batch("object_detection"))
    output = perfect_boxes(name, batch)
    options = PredictionOptions(score_threshold=0.5, max_detections=10)
    for found, target in zip(find_head(name).predict(output, batch, DETECTION, options), batch["targets"]):
        expected = target["boxes"] * torch.tensor([1.5, 2.0, 1.5, 2.0])
        torch.testing.assert_close(found["boxes"], expected, rtol=1e-4, atol=1e-3)
        assert found["labels"].tolist() == [1, 2]
        assert found["scores"][0] > found["scores"][1] > 0.5
    best = find_head(name).predict(output, batch, DETECTION, PredictionOptions(max_detections=1))
    assert [len(found["boxes"]) for found in best] == [1, 1]


def test_boxes_end_where_the_image_ends() -> None:
    batch = draw_batch("object_detection")
    output = perfect_boxes("detr", batch)
    output.pred_boxes[:, 0] = torch.tensor([1.0, 1.0, 0.5, 0.5])
    found = find_head("detr").predict(output, batch, DETECTION, PredictionOptions(score_threshold=0.5))[1]
    assert found["boxes"][1].tolist() == pytest.approx([52.5, 36, 70, 48])


def queries(labels: list[int], masks: torch.Tensor) -> Mask2FormerForUniversalSegmentationOutput:
    """The same sure queries for each image: labels (Q,) and mask logits (B, Q, h, w)."""
    logits = torch.zeros(len(masks), len(labels), len(LABELS) + 1)
    logits[:, range(len(labels)), labels] = SURE
    return Mask2FormerForUniversalSegmentationOutput(class_queries_logits=logits, masks_queries_logits=masks)


def perfect_queries(batch: Batch) -> Mask2FormerForUniversalSegmentationOutput:
    """The sky round the objects, the two objects, and a query without an object, at a quarter of the resolution."""
    masks = find_head("mask2former").targets(batch, TASKS["instance_segmentation"])["mask_labels"]
    objects = avg_pool2d(torch.stack(masks), 4).round()
    maps = torch.cat([1 - objects.sum(1, keepdim=True), objects, torch.ones(2, 1, 16, 24)], dim=1)
    return queries([0, 1, 2, 3], SURE * (2 * maps - 1))


def aligned_batch() -> Batch:
    """Objects whose borders lie on the grid of the maps at stride 4."""
    batch = draw_batch("instance_segmentation")
    for target in batch["targets"]:
        target["masks"] = torch.zeros_like(target["masks"])
        target["masks"][0, :24, 4:36] = target["masks"][1, 28:, 32:68] = True
    return batch


def assert_same_but_for_corners(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Bilinear interpolation rounds off the corners of a rectangle; the boxes show that no side has moved."""
    assert actual.shape == expected.shape
    assert (actual != expected).float().mean() < 0.01


def test_masks_come_back_in_original_pixels() -> None:
    batch = enlarged(aligned_batch(), (2.0, 2.0))
    predict, output = find_head("mask2former").predict, perfect_queries(batch)
    instances = predict(output, batch, TASKS["instance_segmentation"], PredictionOptions(score_threshold=0.5))
    segments = predict(output, batch, TASKS["panoptic_segmentation"], OPTIONS)
    maps = predict(output, batch, TASKS["semantic_segmentation"], OPTIONS)
    for image, target in enumerate(batch["targets"]):
        expected = target["masks"].repeat_interleave(2, 1).repeat_interleave(2, 2)
        order = instances[image]["labels"].argsort()
        assert instances[image]["labels"][order].tolist() == [0, 1, 2]
        assert_same_but_for_corners(instances[image]["masks"][order[1:]], expected)
        height = 2 * SIZES[image][0]
        assert instances[image]["boxes"][order[1:]].tolist() == [[8, 0, 72, 48], [64, 56, 136, height]]
        ids = torch.where(expected.any(0), expected.int().argmax(0) + 1, 0)
        assert_same_but_for_corners(maps[image]["semantic_map"], ids)
        assert_same_but_for_corners(segments[image]["labels"][segments[image]["segment_map"]], ids)


def test_maps_are_cut_to_the_image_before_they_are_resized() -> None:
    scores = torch.randn(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    sizes = Geometry(original=(91, 66), resized=(61, 44), padded=(80, 120))
    by_hand = torch.nn.functional.interpolate(scores, size=(80, 120), mode="bilinear")[:, :, :61, :44]
    by_hand = torch.nn.functional.interpolate(by_hand, size=(91, 66), mode="bilinear")[0]
    assert torch.equal(sizes.restore(scores[0]), by_hand)


def single_image(height: int, width: int) -> Batch:
    return {
        "pixel_values": torch.zeros(1, 3, height, width),
        "pixel_mask": torch.ones(1, height, width, dtype=torch.int64),
        "targets": [{"original_size": (height, width)}],
    }


def predict_one(output: Any, task: str, options: PredictionOptions = OPTIONS) -> Prediction:
    height, width = output.masks_queries_logits.shape[-2:]
    (prediction,) = find_head("mask2former").predict(output, single_image(height, width), TASKS[task], options)
    return prediction


def rows(*logits: list[float]) -> torch.Tensor:
    """Masks one pixel high: (1, Q, 1, W)."""
    return torch.tensor(logits)[None, :, None]


def test_a_score_of_an_instance_is_that_of_its_class_times_that_of_its_mask() -> None:
    output = queries([1, 2], rows([1.0, 2.0, -3.0], [-1.0, -1.0, -1.0]))
    output.class_queries_logits = torch.log(torch.tensor([[[0.1, 0.6, 0.2, 0.1], [0.0, 0.0, 0.9, 0.1]]]))
    found = predict_one(output, "instance_segmentation")
    quality = torch.tensor([1.0, 2.0]).sigmoid().mean().item()
    assert found["labels"].tolist() == [1, 2, 0], "a query may have several classes; an empty mask is no instance"
    assert found["scores"].tolist() == pytest.approx([0.6 * quality, 0.2 * quality, 0.1 * quality])
    assert found["masks"].tolist() == 3 * [[[True, True, False]]]
    assert found["boxes"].tolist() == 3 * [[0, 0, 2, 1]]
    best = predict_one(output, "instance_segmentation", PredictionOptions(max_detections=2))
    assert best["labels"].tolist() == [1], "the second of the two best pairs is the empty mask"
    nothing = predict_one(output, "instance_segmentation", PredictionOptions(score_threshold=0.99))
    assert {name: tuple(value.shape) for name, value in nothing.items()} == {
        "masks": (0, 1, 3),
        "boxes": (0, 4),
        "labels": (0,),
        "scores": (0,),
    }


def segments_of(labels: list[int], masks: torch.Tensor) -> tuple[list[int], list[int]]:
    found = predict_one(queries(labels, masks), "panoptic_segmentation")
    assert len(found["scores"]) == len(found["labels"])
    return found["segment_map"][0].tolist(), found["labels"].tolist()


def test_segments_of_a_class_that_is_not_countable_become_one() -> None:
    """And the segments after it still have positions of their own."""
    masks = 9.0 * (2 * torch.eye(5)[None, :, None] - 1)
    assert segments_of([1, 0, 1, 0, 2], masks) == ([0, 1, 2, 1, 3], [1, 0, 1, 2])


def test_pixels_outside_all_masks_are_void() -> None:
    assert segments_of([1, 2], rows([9.0, -1.0, -9.0], [-9.0, -2.0, 9.0])) == ([0, -1, 1], [1, 2])


def test_a_segment_that_lost_most_of_its_mask_is_dropped() -> None:
    """The second mask keeps 1 of its 3 pixels; the third, of 4, is outvoted in none."""
    masks = rows(
        [9, 9, 9, -9, -9, -9, -9, -9],
        [-9, 2, 2, 2, -9, -9, -9, -9],
        [-9, -9, -9, -9, 9, 9, 9, 9],
    ).float()
    assert segments_of([1, 1, 2], masks) == ([0, 0, 0, -1, 1, 1, 1, 1], [1, 2])


def test_the_area_of_a_mask_does_not_depend_on_its_score() -> None:
    """The first mask keeps 1 of its 4 pixels, although its score times its probability is below 0.5 in the others."""
    output = queries([1, 2], rows([0.2, 0.2, 0.2, 9.0], [9.0, 9.0, 9.0, -9.0]))
    output.class_queries_logits[0, 0] = torch.log(torch.tensor([0.05, 0.85, 0.05, 0.05]))
    found = predict_one(output, "panoptic_segmentation")
    assert (found["segment_map"].tolist(), found["labels"].tolist()) == ([[0, 0, 0, -1]], [2])


def test_queries_that_are_not_sure_are_no_segments() -> None:
    output = queries([1, 2, 3], rows([9.0, -9.0, -9.0], [-9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]))
    output.class_queries_logits[0, 0] = torch.log(torch.tensor([0.1, 0.79, 0.06, 0.05]))
    found = predict_one(output, "panoptic_segmentation")
    assert (found["segment_map"].tolist(), found["labels"].tolist()) == ([[-1, 0, -1]], [2])


@pytest.mark.parametrize("name", ["mask2former", "maskformer"])
def test_query_scores_equal_the_processor_where_it_does_not_distort(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    output = Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=torch.randn(1, 8, 6, generator=generator),
        masks_queries_logits=torch.randn(1, 8, 384, 384, generator=generator),
    )
    head = find_head(name)
    expected = head.processor_class().post_process_semantic_segmentation(output, target_sizes=[(100, 150)])[0]
    batch = single_image(384, 384)
    batch["targets"][0]["original_size"] = (100, 150)
    assert torch.equal(
        head.predict(output, batch, TASKS["semantic_segmentation"], OPTIONS)[0]["semantic_map"], expected
    )


@pytest.mark.parametrize("task", find_head("mask2former").tasks)
def test_memory_does_not_grow_with_the_number_of_queries(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than CHUNK_ELEMENTS are at the size of the image at once, and the prediction is the same."""
    generator = torch.Generator().manual_seed(0)
    masks = 5 * torch.randn(1, 40, 12, 9, generator=generator)
    output = queries([index % 3 for index in range(40)], masks)
    batch = single_image(48, 36)
    batch["targets"][0]["original_size"] = (480, 360)
    predict, largest = find_head("mask2former").predict, []
    (expected,) = predict(output, batch, TASKS[task], OPTIONS)

    def interpolate(maps: torch.Tensor, **arguments: Any) -> torch.Tensor:
        resized = torch.nn.functional.interpolate(maps, **arguments)
        largest.append(resized.numel())
        return resized

    monkeypatch.setattr(geometry, "CHUNK_ELEMENTS", 2 * 480 * 360)
    monkeypatch.setattr(geometry, "interpolate", interpolate)
    (actual,) = predict(output, batch, TASKS[task], OPTIONS)
    assert 0 < max(largest) <= 2 * 480 * 360
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("head", "task", "message"),
    [
        (
            HeadOptions(name="upernet"),
            "object_detection",
            "head.name=upernet cannot be .* use conditional_detr or d_fine or",
        ),
        (HeadOptions(name="detr", config={"d_modle": 3}), "object_detection", "d_modle: DetrConfig .* d_model"),
        (HeadOptions(name="d_fine", config={"d_model": "x"}), "object_detection", "head.config: .*d_model"),
        (HeadOptions(name="mask2former", config={"hidden_dim": 30}), "panoptic_segmentation", "head.config: .*30"),
    ],
)
def test_a_wrong_head_is_refused(head: HeadOptions, task: str, message: str, backbone_file: Path) -> None:
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(head.name).out_features)
    with pytest.raises(UserError, match=message):
        build_model(head, backbone, LABELS, TASKS[task])


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_the_model_takes_over_the_weights_of_the_backbone(name: str, task: str, backbone_file: Path) -> None:
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(name).out_features)
    model = build_model(HeadOptions(name=name, config=FIELDS[name]), backbone, LABELS, TASKS[task])
    expected = backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in encoder_of(model).state_dict().items())


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_deformable_attention_of_a_head_runs_on_the_kernel(name: str, task: str, backbone_file: Path) -> None:
    model, inputs = build(name, task, backbone_file), find_head(name).loss_inputs(draw_batch(task), TASKS[task])
    torch.manual_seed(0)  # of the points and the noise that the losses draw
    loss = model(**inputs).loss
    assert bool(restore_heads(model)) == (name in DEFORMABLE)
    torch.manual_seed(0)
    torch.testing.assert_close(loss, model(**inputs).loss, rtol=1e-4, atol=0)


def test_fields_of_a_recipe_win(backbone_file: Path) -> None:
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head("rt_detr").out_features)
    fields = FIELDS["rt_detr"] | {"freeze_backbone_batch_norms": True}
    config = build_model(HeadOptions(name="rt_detr", config=fields), backbone, LABELS, DETECTION).config
    assert config.freeze_backbone_batch_norms is True
    assert find_head("rt_detr").entry.settings({}, backbone.channels)["freeze_backbone_batch_norms"] is False
    assert (config.encoder_in_channels, config.decoder_in_channels) == ([32] * 3, [32] * 3)
    assert config.id2label == dict(enumerate(LABELS))


def test_deformable_detr_starts_as_the_official_one(backbone_file: Path) -> None:
    """No class is probable, and the boxes sit on the reference points, in every layer of the decoder."""
    model = build("deformable_detr", "object_detection", backbone_file).eval()
    with torch.no_grad():
        output = model(**find_head("deformable_detr").model_inputs(draw_batch("object_detection")))
    assert output.logits.sigmoid().mean() == pytest.approx(0.01, rel=0.3)
    sides = output.pred_boxes[..., 2:]
    torch.testing.assert_close(sides, torch.full_like(sides, -2.0).sigmoid())
    torch.testing.assert_close(output.pred_boxes[..., :2], output.init_reference_points)
    assert all(layer.bias.eq(model.class_embed[0].bias).all() for layer in model.class_embed)


def test_conditional_detr_starts_as_the_official_one(backbone_file: Path) -> None:
    """No class is probable, and the boxes sit on the queries' points, half as large as the image."""
    model = build("conditional_detr", "object_detection", backbone_file).eval()
    inputs = find_head("conditional_detr").model_inputs(draw_batch("object_detection"))
    with torch.no_grad():
        output, points = model(**inputs), model.model(**inputs).reference_points
    assert output.logits.sigmoid().mean() == pytest.approx(0.01, rel=0.3)
    torch.testing.assert_close(output.pred_boxes[..., 2:], torch.full_like(output.pred_boxes[..., 2:], 0.5))
    torch.testing.assert_close(output.pred_boxes[..., :2], points.transpose(0, 1))


def test_every_layer_of_maskformer_s_decoder_has_a_loss(backbone_file: Path, tmp_path: Path) -> None:
    """Its input too; and the same in a saved model."""
    task = "panoptic_segmentation"
    model = build("maskformer", task, backbone_file).eval()
    inputs = find_head("maskformer").loss_inputs(draw_batch(task), TASKS[task])
    model.save_pretrained(tmp_path)
    expected, actual = (
        each(**inputs, output_auxiliary_logits=True) for each in (model, type(model).from_pretrained(tmp_path))
    )
    assert len(expected.auxiliary_logits) == model.config.decoder_config.decoder_layers == 2
    assert torch.equal(actual.loss, expected.loss)
    model.config.use_auxiliary_loss = False
    assert model(**inputs).loss < expected.loss


@pytest.mark.parametrize("field", ["decoder_layer", "num_querys"])
def test_a_misspelt_field_of_a_config_in_the_head_s_is_refused(field: str, backbone_file: Path) -> None:
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)))
    head = HeadOptions(name="maskformer", config={"decoder_config": {field: 1}})
    with pytest.raises(UserError, match=f"head.config.decoder_config.{field}: .* did you mean"):
        build_model(head, backbone, LABELS, TASKS["semantic_segmentation"])
