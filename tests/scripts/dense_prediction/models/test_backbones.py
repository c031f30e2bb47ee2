"""Backbones as a recipe describes them, and the baseline in ViT-CoMer's place under every head."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoBackbone, AutoConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model, encoder_of
from dense_prediction.models.heads import find_head
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramid, SimpleFeaturePyramidBackbone
from dense_prediction.recipes.schema import OptimizationOptions
from dense_prediction.training.optimization import parameter_groups
from miniature import BACKBONE
from miniature_heads import FIELDS, HEADS_AND_TASKS, LABELS, build, draw_batch
from modeling_vit_comer import ViTCoMerBackbone


BASELINE = {"model_type": "simple_feature_pyramid"}
SEMANTIC = "semantic_segmentation"
STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture
def baseline(backbone_file: Path) -> SimpleFeaturePyramidBackbone:
    torch.manual_seed(0)
    return build_backbone(BackboneOptions(config=str(backbone_file), overrides=BASELINE))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, ["stage2", "stage4"]),
        ({"out_features": ["stage3"]}, ["stage3"]),
        ({"out_indices": [1]}, ["stage1"]),
    ],
)
def test_the_head_chooses_the_maps_unless_the_recipe_does(
    overrides: dict[str, list], expected: list[str], backbone_file: Path, tmp_path: Path
) -> None:
    config = BackboneOptions(config=str(backbone_file), overrides=overrides)
    assert build_backbone(config, ["stage2", "stage4"]).out_features == expected
    build_backbone(BackboneOptions(config=str(backbone_file))).save_pretrained(tmp_path)
    checkpoint = BackboneOptions(checkpoint=str(tmp_path), overrides=overrides)
    assert build_backbone(checkpoint, ["stage2", "stage4"]).out_features == expected
    assert build_backbone(BackboneOptions(checkpoint=str(tmp_path))).out_features == STAGES


def test_maps_that_a_backbone_has_not_are_refused(backbone_file: Path) -> None:
    with pytest.raises(UserError, match="backbone's config is wrong: .*stage5"):
        build_backbone(BackboneOptions(config=str(backbone_file)), ["stage5"])
    with pytest.raises(UserError, match="has no stem"):
        build_backbone(BackboneOptions(config=str(backbone_file), overrides=BASELINE), ["stem", "stage1"])


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_the_baseline_trains_under_every_head(name: str, task: str, backbone_file: Path) -> None:
    model = build(name, task, backbone_file, **BASELINE).train()
    encoder = encoder_of(model)
    assert isinstance(encoder, SimpleFeaturePyramidBackbone)
    model(**find_head(name).loss_inputs(draw_batch(task), TASKS[task])).loss.backward()
    assert all(parameter.grad.any() for parameter in encoder.trunk.parameters())


def test_the_baseline_has_the_pyramid_of_the_trunk_alone(baseline: SimpleFeaturePyramidBackbone) -> None:
    """Normalised; strides 4 to 32 of an image of any size."""
    pixel_values = torch.randn(2, 3, 70, 96)
    plain = SimpleFeaturePyramid(baseline.trunk).eval()
    plain.levels.load_state_dict(baseline.levels.state_dict())
    with torch.no_grad():
        maps, expected = baseline.eval()(pixel_values).feature_maps, plain(pixel_values)
    assert [tuple(each.shape[1:]) for each in maps] == [(32, 18, 24), (32, 9, 12), (32, 5, 6), (32, 3, 3)]
    for actual, raw in zip(maps, expected, strict=True):
        centred = raw - raw.mean(1, keepdim=True)
        torch.testing.assert_close(actual, centred / raw.var(1, keepdim=True, correction=0).add(1e-6).sqrt())


def test_the_baseline_is_read_back_by_the_auto_classes(baseline: SimpleFeaturePyramidBackbone, tmp_path: Path) -> None:
    baseline.save_pretrained(tmp_path)
    again, report = SimpleFeaturePyramidBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert isinstance(AutoBackbone.from_config(AutoConfig.from_pretrained(tmp_path)), SimpleFeaturePyramidBackbone)
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = [backbone.eval()(pixel_values).feature_maps for backbone in (baseline, again)]
    assert all(torch.equal(*pair) for pair in zip(*maps, strict=True))


def test_the_baseline_takes_the_trunk_of_a_vit_comer(backbone_file: Path, tmp_path: Path) -> None:
    """And initialises what that has not, although its weights are made on the meta device."""
    comer = build_backbone(BackboneOptions(config=str(backbone_file)))
    comer.save_pretrained(tmp_path)
    baseline = build_backbone(BackboneOptions(checkpoint=str(tmp_path), overrides=BASELINE))
    expected = comer.trunk.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in baseline.trunk.state_dict().items())
    for norm in (baseline.levels[0][1], *baseline.norm.values()):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    for deconvolution in (baseline.levels[0][0], baseline.levels[0][3], baseline.levels[1]):
        assert 0.05 < deconvolution.weight.std() < 0.3 and (deconvolution.bias == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("source", ["backbone", "trained model", "config"])
def test_everything_is_trained_in_float32(
    source: str, dtype: torch.dtype, backbone_file: Path, tmp_path: Path
) -> None:
    """Whatever it was saved in: in less, small steps would be rounded away."""
    model = build("upernet", SEMANTIC, backbone_file)
    saved = (model if source == "trained model" else encoder_of(model)).to(dtype)
    saved.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    place = {"config": str(tmp_path / "config.json")} if source == "config" else {"checkpoint": str(tmp_path)}
    backbone = build_backbone(BackboneOptions(**place), find_head("upernet").out_features)
    for name, value in encoder_of(model).state_dict().items() if source != "config" else ():
        assert torch.equal(backbone.state_dict()[name], value.to(backbone.state_dict()[name].dtype)), name

    again = build_model(
        HeadOptions(name="upernet", config=FIELDS["upernet"]), backbone, LABELS, TASKS[SEMANTIC]
    ).train()
    assert {tensor.dtype for tensor in again.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    trunk = encoder_of(again).trunk
    before = [parameter.detach().clone() for parameter in trunk.parameters()]
    again(**find_head("upernet").loss_inputs(draw_batch(SEMANTIC), TASKS[SEMANTIC])).loss.backward()
    torch.optim.AdamW(again.parameters(), lr=1e-5, weight_decay=0).step()
    assert not any(torch.equal(*pair) for pair in zip(before, trunk.parameters(), strict=True))


def test_another_dtype_is_refused(backbone_file: Path) -> None:
    with pytest.raises(UserError, match="dtype=bfloat16 cannot be used here, only float32"):
        build_backbone(BackboneOptions(config=str(backbone_file), overrides={"dtype": "bfloat16"}))


@pytest.mark.parametrize(("name", "task"), HEADS_AND_TASKS)
def test_a_training_starts_from_a_trained_model(
    name: str, task: str, backbone_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its backbone goes on, with maps that another head wants and what was frozen free again."""
    trained = build(name, task, backbone_file, freeze_trunk=True)
    trained.save_pretrained(tmp_path)
    backbone = build_backbone(BackboneOptions(checkpoint=str(tmp_path), overrides={"drop_path_rate": 0.2}), STAGES)
    assert f"backbone of this {type(trained).__name__} goes on, its head is dropped" in caplog.text
    expected, actual = encoder_of(trained).state_dict(), backbone.state_dict()
    assert len(expected) > 100
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert (backbone.out_features, backbone.config.drop_path_rate) == (STAGES, 0.2)
    assert all(parameter.requires_grad for parameter in backbone.trunk.parameters())
    build_model(HeadOptions(name="upernet", config=FIELDS["upernet"]), backbone, LABELS, TASKS[SEMANTIC])


def test_what_holds_no_backbone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a bert: give .* a trained model, .* starts anew: conditional_detr, d_f"):
        build_backbone(BackboneOptions(checkpoint=str(tmp_path)))


@pytest.mark.parametrize("model_type", ["vit_comer", "simple_feature_pyramid"])
def test_weights_of_timm_reach_the_trunk(model_type: str, backbone_file: Path, tmp_path: Path) -> None:
    recipe = {"config": str(backbone_file), "overrides": {"model_type": model_type}}
    source = build_backbone(BackboneOptions(**recipe)).trunk.state_dict()
    names = {name: re.sub(r"^layers\.(\d+)\.block\.", r"blocks.\1.", name) for name in source}
    save_file({names[name].removeprefix("embeddings."): source[name] for name in source}, tmp_path / "trunk.st")
    loaded = build_backbone(BackboneOptions(**recipe, trunk_weights=str(tmp_path / "trunk.st")))
    assert all(torch.equal(value, source[name]) for name, value in loaded.trunk.state_dict().items())


def test_the_trunk_of_the_baseline_decays_freezes_and_recomputes(backbone_file: Path) -> None:
    model = build("upernet", "semantic_segmentation", backbone_file, **BASELINE)
    groups = parameter_groups(model, OptimizationOptions(learning_rate=1.0, layer_decay=0.5))
    assert {group["lr"] for group in groups} == {1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}

    encoder = encoder_of(model)
    encoder.activation_checkpointing_enable()
    layers = [module for module in encoder.trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(layers) == 4 and all(layer.gradient_checkpointing for layer in layers)

    recipe = BackboneOptions(config=str(backbone_file), overrides=BASELINE, freeze_trunk=True)
    frozen = build_backbone(recipe).train()
    assert not frozen.trunk.training and frozen.levels.training
    assert not any(parameter.requires_grad for parameter in frozen.trunk.parameters())
    assert all(parameter.requires_grad for parameter in frozen.levels.parameters())


def test_both_backbones_are_described_by_one_file(backbone_file: Path) -> None:
    assert json.loads(backbone_file.read_text()) == BACKBONE
    comer, baseline = (
        build_backbone(BackboneOptions(config=str(backbone_file), overrides=overrides)) for overrides in ({}, BASELINE)
    )
    assert type(comer) is ViTCoMerBackbone
    shapes = [{name: p.shape for name, p in each.trunk.named_parameters()} for each in (comer, baseline)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in baseline.parameters()) < sum(p.numel() for p in comer.parameters())
