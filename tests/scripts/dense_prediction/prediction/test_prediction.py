"""Saved models with their image processors: they predict as the evaluation does, whatever an image's size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

from dense_prediction.batches.options import TransformOptions
from dense_prediction.batches.streams import collate
from dense_prediction.batches.transforms import EvaluationTransform
from dense_prediction.batches.types import PredictionOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.evaluation.views import Viewer, keep_windows
from dense_prediction.models.building import task_of, things_of
from dense_prediction.models.heads import find_head, head_names
from dense_prediction.models.options import HeadOptions
from dense_prediction.models.saved_models import build_processor, padding_divisor, read_model
from dense_prediction.prediction.trained_model import predict_image, prepare_image
from dense_prediction.recipes.schema import EvaluationOptions
from miniature_heads import FIELDS, HEADS_AND_TASKS, build
from modeling_vit_comer import restore_heads


CPU = torch.device("cpu")
RESIZE = {
    "none": {"evaluation_resize": "none"},
    "shortest_edge": {"evaluation_resize": "shortest_edge", "shortest_edges": [32, 64], "longest_edge": 90},
    "fixed": {"evaluation_resize": "fixed"},
}
WINDOWS: dict[str, Any] = {"window": (64, 64), "stride": (42, 42)}
OPTIONS = PredictionOptions(things=frozenset({1, 2}), object_threshold=0.0)


def transforms_for(resize: str, **fields: Any) -> TransformOptions:
    return TransformOptions(crop_size=(64, 96), image_mean=(0.4, 0.5, 0.6), **RESIZE[resize], **fields)


def draw_image(height: int, width: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("name", head_names())
def test_the_processor_prepares_an_image_as_the_evaluation_does(name: str, resize: str, tmp_path: Path) -> None:
    """Also when it was saved and read back: size, padding and every pixel."""
    recipe, transforms = HeadOptions(name=name, config=FIELDS[name]), transforms_for(resize, size_divisor=6)
    build_processor(recipe, transforms).save_pretrained(tmp_path)
    processor = find_head(name).processor_class.from_pretrained(tmp_path)
    for size in ((33, 47), (47, 33), (80, 61), (300, 400)):
        image = draw_image(*size)
        example = EvaluationTransform(transforms)({"image": tv_tensors.Image(pil_to_tensor(image))})
        expected = collate([example], padding_divisor(find_head(recipe.name), transforms))
        actual = prepare_image(find_head(name), processor, image, CPU)
        assert actual["targets"] == expected["targets"] == [{"original_size": size}]
        assert torch.equal(actual["pixel_mask"], expected["pixel_mask"])
        torch.testing.assert_close(actual["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-5)
        assert all(
            side % 6 == 0 and side % find_head(name).size_divisor == 0 for side in actual["pixel_values"].shape[2:]
        )


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_a_saved_model_predicts_the_same(name: str, task: str, backbone_file: Path, tmp_path: Path) -> None:
    model = build(name, task, backbone_file).eval()
    resize = "shortest_edge" if task == "object_detection" else "none"
    processor = build_processor(HeadOptions(name=name, config=FIELDS[name]), transforms_for(resize))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = read_model(tmp_path, CPU)
    assert (task_of(again), things_of(again)) == (task, frozenset({1, 2}))
    for height, width in ((33, 47), (70, 150)):
        image = draw_image(height, width)
        expected = predict_image(model, processor, image, OPTIONS)
        actual = predict_image(again, processor_again, image, OPTIONS)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-3, msg=key)
        for key in ("semantic_map", "segment_map", "masks"):
            assert key not in actual or actual[key].shape[-2:] == (height, width)
        if "boxes" in actual:
            assert (actual["boxes"] <= torch.tensor([width, height, width, height])).all()
            assert len(actual["boxes"]) > 0
    assert restore_heads(again) == restore_heads(model)  # layers that run on the kernel


def test_a_saved_model_looks_through_the_windows_that_it_was_measured_in(backbone_file: Path, tmp_path: Path) -> None:
    model, views = build("upernet", "semantic_segmentation", backbone_file).eval(), EvaluationOptions(**WINDOWS)
    processor = build_processor(HeadOptions(name="upernet"), transforms_for("none"))
    image = draw_image(100, 150)
    whole = predict_image(model, processor, image, OPTIONS)["semantic_map"]
    keep_windows(processor, EvaluationOptions(**WINDOWS, flip=True, scales=[0.5, 1.0]))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = predict_image(*read_model(tmp_path, CPU), image, OPTIONS)["semantic_map"]
    head, batch = find_head("upernet"), prepare_image(find_head("upernet"), processor, image, CPU)
    with torch.no_grad():
        (expected,) = Viewer(head, TASKS["semantic_segmentation"], views, OPTIONS).predict(model, batch)
    assert torch.equal(found, expected["semantic_map"])
    assert not torch.equal(found, whole)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_other_modes_are_read_as_rgb(mode: str, backbone_file: Path) -> None:
    model = build("upernet", "semantic_segmentation", backbone_file).eval()
    processor = build_processor(HeadOptions(name="upernet"), transforms_for("none"))
    image = draw_image(33, 47, mode)
    found = predict_image(model, processor, image, OPTIONS)["semantic_map"]
    expected = predict_image(model, processor, image.convert("RGB"), OPTIONS)["semantic_map"]
    assert torch.equal(found, expected)


def test_a_folder_without_a_model_is_refused(backbone_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no model folder: it has no config.json"):
        read_model(tmp_path, CPU)
    build("upernet", "semantic_segmentation", backbone_file).backbone.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds \['ViTCoMerBackbone'\]; supported are ConditionalDetr"):
        read_model(tmp_path, CPU)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot load the model in"):
        read_model(tmp_path, CPU)
