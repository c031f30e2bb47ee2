"""Which parameter learns how fast and which decays, on real models with the trunks of both libraries."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, ResNetBackbone, ResNetConfig

from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.recipes.schema import OptimizationOptions
from dense_prediction.training.optimization import build_optimizer, describe_groups, parameter_groups
from miniature import HEADS
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig


Settings = dict[str, tuple[float, float]]

TIMM = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 64}
TRANSFORMERS = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
MATRICES = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
BEIT = {
    "use_relative_position_bias": True,
    "use_shared_relative_position_bias": True,
    "use_absolute_position_embeddings": True,
}
TRUNKS = {
    "timm vit": {"architecture": "vit_tiny_patch16_224", "model_args": TIMM | {"init_values": 1.0, "reg_tokens": 2}},
    "timm deit": {"architecture": "deit_tiny_distilled_patch16_224", "model_args": TIMM},
    "timm eva": {"architecture": "vit_small_patch16_rope_mixed_224", "model_args": TIMM},
    "timm beit": {"architecture": "beitv2_base_patch16_224", "model_args": TIMM | {"use_abs_pos_emb": True}},
    "timm beit shared": {
        "architecture": "beitv2_base_patch16_224",
        "model_args": TIMM | {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    },
    "vit": TRANSFORMERS,
    "deit": TRANSFORMERS,
    "beit": TRANSFORMERS | BEIT,
    "dinov2": TRANSFORMERS,
    "dinov2_with_registers": TRANSFORMERS,
    "dinov3_vit": TRANSFORMERS,
}


@pytest.fixture(scope="module")
def make_model(backbone_file: Path) -> Callable[..., PreTrainedModel]:
    def make(head: str = "upernet", **fields: object) -> PreTrainedModel:
        backbone = build_backbone(BackboneOptions(config=str(backbone_file), **fields))
        return build_model(
            HeadOptions(name=head, config=HEADS[head]), backbone, ["a", "b"], TASKS["semantic_segmentation"]
        )

    return make


def settings_by_name(model: nn.Module, recipe: OptimizationOptions) -> Settings:
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
    settings = settings_by_name(model, OptimizationOptions(learning_rate=1.0, weight_decay=0.5))
    assert set(settings) == {name for name, _ in model.named_parameters()}
    spared = {name for name, (_, decay) in settings.items() if decay == 0}
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name in ("bias", "gamma") or isinstance(module, norms):
                assert f"{prefix}.{name}" in spared
            elif isinstance(module, MATRICES):
                assert f"{prefix}.{name}" not in spared
    for part in ("level_embed", "pos_embed", "cls_token"):
        assert [name for name in spared if part in name], part


def test_the_trunk_learns_slower_the_deeper_a_block_lies(make_model: Callable[..., PreTrainedModel]) -> None:
    recipe = OptimizationOptions(learning_rate=1.0, trunk_lr_multiplier=0.1, layer_decay=0.5)
    rates = {name: rate for name, (rate, _) in settings_by_name(make_model(), recipe).items()}
    trunk = "backbone.trunk"
    for block in range(4):
        assert rates[f"{trunk}.layers.{block}.block.attn.qkv.weight"] == pytest.approx(0.1 * 0.5 ** (4 - block))
    assert rates[f"{trunk}.embeddings.patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5**5)
    assert {rate for name, rate in rates.items() if trunk not in name} == {1.0}


@pytest.fixture(scope="module", params=TRUNKS)
def trunk_backbone(request: pytest.FixtureRequest) -> ViTCoMerBackbone:
    model_type = "timm_wrapper" if request.param.startswith("timm") else request.param
    with torch.device("meta"):
        return ViTCoMerBackbone(ViTCoMerConfig(trunk_config={"model_type": model_type, **TRUNKS[request.param]}))


def test_every_trunk_has_its_depths(trunk_backbone: ViTCoMerBackbone) -> None:
    recipe = OptimizationOptions(learning_rate=1.0, layer_decay=0.5)
    rates = {name: rate for name, (rate, _) in settings_by_name(trunk_backbone, recipe).items()}
    block = re.compile(r"^trunk\..*?\blayers?\.(\d+)\.")
    blocks = {name: 4 - int(block.search(name)[1]) for name in rates if block.search(name)}
    assert set(blocks.values()) == {1, 2, 3, 4}
    for name, rate in rates.items():
        outside = 0 if not name.startswith("trunk.") else 5
        assert rate == 0.5 ** blocks.get(name, outside), name


def test_in_every_trunk_only_matrices_decay(trunk_backbone: ViTCoMerBackbone) -> None:
    settings = settings_by_name(trunk_backbone, OptimizationOptions(learning_rate=1.0, weight_decay=0.5))
    layers = {id(module.weight) for module in trunk_backbone.modules() if isinstance(module, MATRICES)}
    for name, parameter in trunk_backbone.named_parameters():
        assert (settings[name][1] > 0) == (id(parameter) in layers), name


def test_the_log_says_how_much_learns_how_fast(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model()
    groups = parameter_groups(model, OptimizationOptions(learning_rate=1.0, trunk_lr_multiplier=0.1))
    lines = describe_groups(groups).splitlines()
    assert len(lines) == len(groups) == 4
    assert lines[0].startswith("learning rate 1.00e+00, weight decay 0.01: ")
    assert lines[-1].startswith("learning rate 1.00e-01, weight decay 0: ")
    millions = sum(float(line.split()[-3]) for line in lines)
    assert millions == pytest.approx(model.num_parameters() / 1e6, abs=0.02)
    scheduled = [group | {"lr": 0.0, "initial_lr": group["lr"]} for group in groups]
    assert describe_groups(scheduled).splitlines() == lines, "a schedule starts at 0, the peak is what counts"


def test_the_optimizer_steps_the_groups(make_model: Callable[..., PreTrainedModel]) -> None:
    """Without a gradient AdamW only decays, by rate times decay: what decays and how fast shows in the weights."""
    model = make_model()
    recipe = OptimizationOptions(learning_rate=0.5, trunk_lr_multiplier=0.1, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, recipe).step()
    after = model.state_dict()
    for name, factor in (
        ("decode_head.classifier.weight", 0.75),
        ("backbone.trunk.layers.0.block.attn.qkv.weight", 0.975),
        ("backbone.trunk.embeddings.pos_embed", 1.0),
        ("backbone.spatial_pyramid.level_embed", 1.0),
    ):
        torch.testing.assert_close(after[name], factor * before[name])


def test_a_frozen_trunk_is_left_out(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model(freeze_trunk=True)
    names = settings_by_name(model, OptimizationOptions(learning_rate=1.0, trunk_lr_multiplier=0.1))
    assert names
    assert not [name for name in names if ".trunk." in name]


def test_treating_an_absent_trunk_apart_is_refused() -> None:
    resnet = ResNetBackbone(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))
    with pytest.raises(UserError, match="need a backbone with a ViT trunk"):
        parameter_groups(resnet, OptimizationOptions(learning_rate=1.0, layer_decay=0.9))
    assert parameter_groups(resnet, OptimizationOptions(learning_rate=1.0))


def test_the_model_takes_over_the_weights_of_the_backbone(make_model: Callable[..., PreTrainedModel]) -> None:
    torch.manual_seed(0)
    first, second = make_model(), make_model("mask2former")
    encoder = second.model.pixel_level_module.encoder
    assert first.backbone.state_dict().keys() == encoder.state_dict().keys()
    weights = {key: torch.full_like(value, 0.5) for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(weights)
    copy = build_model(
        HeadOptions(name="upernet", config=HEADS["upernet"]), encoder, ["a", "b"], TASKS["semantic_segmentation"]
    )
    assert all((value == 0.5).all() for value in copy.backbone.state_dict().values() if value.is_floating_point())
