"""Our backbone computes what the official one computes: outputs, gradients, batch-norm statistics."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerModel
from modeling_vit_comer.conversion import config_from_official, official_to_ours
from official import (
    FIXTURES,
    TOLERANCE,
    build_backbone,
    golden_file,
    kept_model,
    load_golden,
    official_fill,
    relative_error,
    unit_variance,
)


pytestmark = pytest.mark.usefixtures("implementation")

GOLDENS = [
    "vit_det_cfi_true",
    "vit_det_cfi_false",
    "vit_det_window",
    "vit_det_noextra",
    "vit_det_no_tov",
    "vit_det_pretrain96",
    "vit_seg_default",
    "vit_seg_cfi_false_dimratio1",
    "beit_codetr_new",
]


@pytest.mark.parametrize("name", ["vit_det_noextra", "vit_seg_default", "beit_codetr_new"])
def test_kept_outputs(name: str) -> None:
    model = kept_model(name)
    backbone = build_backbone(model["flavour"], model["kwargs"], official_fill(model["weights"]))
    expected = load_file(FIXTURES / "official_outputs.safetensors")
    with torch.no_grad():
        feature_maps = backbone(unit_variance("input.pixel_values", model["input_shape"])).feature_maps
    for index, feature_map in enumerate(feature_maps):
        error = relative_error(feature_map.flatten()[::5], expected[f"{name}.output.{index}"])
        assert error < TOLERANCE, f"map {index}"


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_outputs(name: str) -> None:
    backbone, tensors = load_golden(name)
    with torch.no_grad():
        feature_maps = backbone(tensors["input.pixel_values"]).feature_maps
    for index, feature_map in enumerate(feature_maps):
        assert relative_error(feature_map, tensors[f"output.{index}"]) < TOLERANCE, f"map {index}"


def test_golden_trunk_of_the_beit() -> None:
    """The official BEiT returns the trunk's last tokens before the four maps."""
    backbone, tensors = load_golden("beit_codetr_new")
    model = ViTCoMerModel(backbone.config).eval()
    model.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        tokens = model(tensors["input.pixel_values"]).last_hidden_state
    assert relative_error(tokens.transpose(1, 2).view_as(tensors["output.x"]), tensors["output.x"]) < TOLERANCE


def test_golden_gradients() -> None:
    backbone, tensors = load_golden("vit_det_cfi_true")
    gradients = load_file(golden_file("grads_vit_det_cfi_true.safetensors"))
    pixel_values = tensors["input.pixel_values"].requires_grad_()
    feature_maps = backbone(pixel_values).feature_maps
    loss = sum((x * unit_variance(f"cot.{i}", x.shape)).sum() for i, x in enumerate(feature_maps))
    loss.backward()
    assert relative_norm(pixel_values.grad, gradients.pop("grad.input.pixel_values")) < 1e-4
    ours = dict(backbone.named_parameters())
    torch.testing.assert_close(loss.detach(), gradients.pop("loss").view(()), rtol=1e-4, atol=0)
    assert len(gradients) == len(ours)
    for key, expected in gradients.items():
        key = key.removeprefix("grad.")
        expected = expected[:, 1:] if key == "pos_embed" else expected
        assert relative_norm(ours[official_to_ours(key)].grad, expected) < 1e-4, key


def relative_norm(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return ((ours - expected).norm() / expected.norm().clamp(min=1e-6)).item()


def test_golden_batch_norm_statistics() -> None:
    expected = load_file(golden_file("train_vit_seg_default.safetensors"))
    model = kept_model("vit_seg_default")
    kwargs = model["kwargs"] | {"drop_path_rate": 0.0}
    backbone = build_backbone("segmentation", kwargs, official_fill(model["weights"])).train()
    feature_maps = backbone(unit_variance("input.pixel_values", [2, 3, 64, 96])).feature_maps
    buffers = dict(backbone.named_buffers())
    for index, feature_map in enumerate(feature_maps):
        assert relative_error(feature_map.detach(), expected[f"output.{index}"]) < TOLERANCE
    after = {key.removeprefix("after."): value for key, value in expected.items() if key.startswith("after.")}
    assert len(after) == len(buffers)
    for key, value in after.items():
        torch.testing.assert_close(buffers[official_to_ours(key)], value, rtol=1e-5, atol=1e-5, msg=key)


def test_golden_full_size() -> None:
    recipe = json.loads(golden_file("full_size_recipe.json").read_text())["S_det_224_global"]
    config = config_from_official("detection", **recipe["kwargs"])
    weights = official_weights_of(ViTCoMerBackbone(config), depth=12, num_stages=4)
    assert len(weights) == recipe["n_keys"]
    backbone = build_backbone("detection", recipe["kwargs"], weights)
    with torch.no_grad():
        feature_maps = backbone(unit_variance("input.pixel_values", recipe["input"])).feature_maps
    for feature_map, expected in zip(feature_maps, recipe["outputs"], strict=True):
        first = torch.tensor(expected["first64"], dtype=torch.float32)
        error = (feature_map.flatten()[:64] - first).abs().max() / expected["std"]
        assert error < TOLERANCE
        assert feature_map.std().item() == pytest.approx(expected["std"], rel=1e-5)
        assert feature_map.mean().item() == pytest.approx(expected["mean"], abs=1e-5 * expected["std"])


def official_weights_of(backbone: ViTCoMerBackbone, depth: int, num_stages: int) -> dict[str, torch.Tensor]:
    """Weights of an official model of another size than the kept one: its keys, with our shapes."""
    shapes = {}
    for key in kept_model("vit_seg_default")["weights"]:
        if not re.match(r"(blocks|interactions)\.[1-9]", key) or ".extra_CTIs." in key:
            for index in range(depth if key.startswith("blocks.") else num_stages):
                copy = re.sub(r"^(blocks|interactions)\.\d+", rf"\g<1>.{index}", key)
                copy = copy if ".extra_CTIs." not in key else key
                shapes[copy] = list(backbone.state_dict()[official_to_ours(copy)].shape)
    shapes["pos_embed"][1] += 1
    return official_fill(shapes)
