"""Learning rates that fall with the depth of the trunk, and what no weight decay may pull to zero, as timm asks."""

import re
from typing import Any

import pytest
from timm.optim import param_groups_layer_decay
from torch import nn
from transformers import PreTrainedModel

from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramidBackbone, SimpleFeaturePyramidConfig
from dense_prediction.recipes.schema import OptimizationOptions
from dense_prediction.training.optimization import parameter_groups
from families import REPRESENTATIVES, TIMM, TRANSFORMERS, family_of
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerModel
from tiny import tiny_config, tiny_fields


RATE, LAYER_DECAY, WEIGHT_DECAY = 0.1, 0.5, 0.05

TABLES = re.compile(
    r"pos_embed|position_embed|level_embed|(cls|reg|dist|mask|distillation|register)_tokens?$"
    r"|relative_position_bias|shared_bias\.table$|\.rope\."
)
"""Names of tables of positions, levels and tokens in all libraries."""


def build(name: str, **fields: Any) -> ViTCoMerBackbone:
    return ViTCoMerBackbone(tiny_config(trunk_config=family_of(name).trunk_config, **fields))


def groups_of(model: PreTrainedModel) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by timm."""
    groups = param_groups_layer_decay(
        model,
        weight_decay=WEIGHT_DECAY,
        layer_decay=LAYER_DECAY,
        no_weight_decay_list=model.no_weight_decay(),
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (RATE * group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def groups_of_training(model: PreTrainedModel) -> dict[str, tuple[float, float]]:
    recipe = OptimizationOptions(learning_rate=RATE, layer_decay=LAYER_DECAY, weight_decay=WEIGHT_DECAY)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", [*TIMM, *(f"hf {name}" for name in TRANSFORMERS)])
def test_names_without_weight_decay(name: str) -> None:
    model = build(name)
    tables = {name for name, value in model.named_parameters() if value.ndim > 1 and TABLES.search(name)}
    assert model.no_weight_decay() == tables
    assert "spatial_pyramid.level_embed" in tables and any(name.startswith("trunk.") for name in tables)


@pytest.mark.parametrize("name", [*REPRESENTATIVES, "beit, shared bias", "hf beit, shared bias"])
def test_timm_groups_as_training_does(name: str) -> None:
    model = build(name, freeze_trunk=False)
    groups = groups_of(model)
    assert groups == groups_of_training(model)
    assert {rate for rate, _ in groups.values()} == {RATE * LAYER_DECAY**depth for depth in range(4)}
    last_block = {groups[name][0] for name in groups if name.startswith(f"trunk.{model.trunk.layers_name}.1.")}
    assert last_block == {RATE * LAYER_DECAY}
    assert {groups[name][0] for name in groups if not name.startswith("trunk.")} == {RATE}


def test_blocks_with_residual_convolutions_and_windows() -> None:
    fields = {"use_prefix_tokens": False, "window_sizes": [2, 0], "residual_block_indexes": [1]}
    for name in ("augreg", "beit"):
        model = build(name, **fields)
        assert groups_of(model) == groups_of_training(model)
        assert groups_of(model)["trunk.layers.1.residual.conv1.weight"] == (RATE * LAYER_DECAY, WEIGHT_DECAY)


def test_simple_feature_pyramid() -> None:
    fields = tiny_fields(trunk_config=family_of("dinov3").trunk_config)
    model = SimpleFeaturePyramidBackbone(SimpleFeaturePyramidConfig(**fields))
    assert groups_of(model) == groups_of_training(model)


def test_more_than_ten_blocks_are_in_order() -> None:
    trunk = family_of("augreg").trunk_config
    trunk["model_args"] = trunk["model_args"] | {"depth": 12}
    model = ViTCoMerModel(tiny_config(trunk_config=trunk, depths=[3, 3, 3, 3]))
    groups = groups_of(model)
    for index in range(12):
        rate, _ = groups[f"trunk.layers.{index}.block.attn.qkv.weight"]
        assert rate == pytest.approx(RATE * LAYER_DECAY ** (12 - index))
    assert groups["trunk.embeddings.patch_embed.proj.weight"][0] == pytest.approx(RATE * LAYER_DECAY**13)


def test_coarse_layers() -> None:
    matcher = build("vit").group_matcher(coarse=True)
    names = ["trunk.model.embeddings.cls_token", "trunk.model.layers.0.mlp.weight", "trunk.model.layers.1.mlp.weight"]
    matched = [[key for key, pattern in matcher.items() if re.match(pattern, name)] for name in names]
    assert matched == [["embeddings"], ["blocks"], ["blocks"]]
    assert all(re.compile(pattern).groups == 0 for pattern in matcher.values())


def test_embeddings_of_a_model_on_the_backbone() -> None:
    class WithQueries(ViTCoMerModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.queries = nn.Embedding(3, 4)

    assert "queries.weight" in WithQueries(tiny_config()).no_weight_decay()
