"""Which parameter learns how fast and which decays, on real models; and the learning rate over a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from miniature import HEADS
from torch import nn
from transformers import PreTrainedModel, ResNetBackbone, ResNetConfig

from dense_prediction.backbones import build_backbone
from dense_prediction.errors import UserError
from dense_prediction.heads import build_model
from dense_prediction.optimization import build_optimizer, build_scheduler, parameter_groups
from dense_prediction.recipes import BackboneRecipe, HeadRecipe, OptimizationRecipe


Settings = dict[str, tuple[float, float]]


@pytest.fixture(scope="module")
def make_model(backbone_file: Path) -> Callable[..., PreTrainedModel]:
    def make(head: str = "upernet", **fields: object) -> PreTrainedModel:
        backbone = build_backbone(BackboneRecipe(config=str(backbone_file), **fields))
        return build_model(HeadRecipe(name=head, config=HEADS[head]), backbone, ["a", "b"])

    return make


def settings_by_name(model: nn.Module, recipe: OptimizationRecipe) -> Settings:
    """(learning rate, weight decay) of every parameter that is optimized, each found in one group only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings: Settings = {}
    for group in parameter_groups(model, recipe):
        for parameter in group["params"]:
            assert names[id(parameter)] not in settings
            settings[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    return settings


@pytest.mark.parametrize("head", HEADS)
def test_weight_decay_hits_matrices_alone(make_model: Callable[..., PreTrainedModel], head: str) -> None:
    model = make_model(head)
    settings = settings_by_name(model, OptimizationRecipe(learning_rate=1.0, weight_decay=0.5))
    assert set(settings) == {name for name, _ in model.named_parameters()}
    spared = {name for name, (_, decay) in settings.items() if decay == 0}
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name in ("bias", "gamma") or isinstance(module, norms):
                assert f"{prefix}.{name}" in spared
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert f"{prefix}.{name}" not in spared
    for part in ("level_embed", "pos_embed", "cls_token"):
        assert [name for name in spared if part in name], part


def test_the_trunk_learns_slower_the_deeper_a_block_lies(make_model: Callable[..., PreTrainedModel]) -> None:
    recipe = OptimizationRecipe(learning_rate=1.0, trunk_lr_multiplier=0.1, layer_decay=0.5)
    rates = {name: rate for name, (rate, _) in settings_by_name(make_model(), recipe).items()}
    trunk = "backbone.trunk"
    for block in range(4):
        assert rates[f"{trunk}.layers.{block}.block.attn.qkv.weight"] == pytest.approx(0.1 * 0.5 ** (4 - block))
    assert rates[f"{trunk}.embeddings.patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5**5)
    assert {rate for name, rate in rates.items() if trunk not in name} == {1.0}


def test_a_frozen_trunk_is_left_out(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model(freeze_trunk=True)
    names = settings_by_name(model, OptimizationRecipe(learning_rate=1.0, trunk_lr_multiplier=0.1))
    assert names
    assert not [name for name in names if ".trunk." in name]


def test_treating_an_absent_trunk_apart_is_refused() -> None:
    resnet = ResNetBackbone(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))
    with pytest.raises(UserError, match="need a backbone with a ViT trunk"):
        parameter_groups(resnet, OptimizationRecipe(learning_rate=1.0, layer_decay=0.9))
    assert parameter_groups(resnet, OptimizationRecipe(learning_rate=1.0))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("poly", [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0, 0.5, 1, 0.853553, 0.5, 0.146447, 0]),
        ("constant", [0, 0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_schedules(make_model: Callable[..., PreTrainedModel], schedule: str, expected: list[float]) -> None:
    recipe = OptimizationRecipe(learning_rate=0.2, trunk_lr_multiplier=0.1, schedule=schedule, warmup_steps=2)
    optimizer = build_optimizer(make_model(), recipe)
    scheduler = build_scheduler(optimizer, recipe, steps=6)
    curve = []
    for _ in expected:
        curve.append(sorted({group["lr"] for group in optimizer.param_groups}))
        optimizer.step()
        scheduler.step()
    for rates, share in zip(curve, expected, strict=True):
        assert rates == pytest.approx(sorted({0.02 * share, 0.2 * share}), abs=1e-7)


def test_the_model_takes_over_the_weights_of_the_backbone(make_model: Callable[..., PreTrainedModel]) -> None:
    torch.manual_seed(0)
    first, second = make_model(), make_model("mask2former")
    encoder = second.model.pixel_level_module.encoder
    assert first.backbone.state_dict().keys() == encoder.state_dict().keys()
    weights = {key: torch.full_like(value, 0.5) for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(weights)
    copy = build_model(HeadRecipe(name="upernet", config=HEADS["upernet"]), encoder, ["a", "b"])
    assert all((value == 0.5).all() for value in copy.backbone.state_dict().values() if value.is_floating_point())
