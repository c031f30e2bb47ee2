"""A family of trunks is one class and its entry in a table: nothing else knows of it."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTMSNConfig, ViTMSNModel

import modeling_vit_comer
from families import images
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.timm_trunks import TIMM_TRUNKS
from modeling_vit_comer.transformers_trunks import TRANSFORMERS_TRUNKS, TransformersTrunk
from modeling_vit_comer.trunk import LIBRARIES
from tiny import tiny_config


class ViTMSNTrunk(TransformersTrunk):
    """A family that the package has not."""

    model_class, layers_name = ViTMSNModel, "model.layers"
    antialiases = takes_residual_blocks = True


@pytest.fixture
def one_more_family(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(TRANSFORMERS_TRUNKS, "vit_msn", ViTMSNTrunk)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return {"model_type": "vit_msn", "image_size": 64, "patch_size": 16} | sizes


def test_one_more_family(one_more_family: dict[str, Any]) -> None:
    config = tiny_config(trunk_config=one_more_family, residual_block_indexes=[1])
    assert config.trunk_facts == ("vit_msn", 32, 2, (4, 4), 1, True)
    assert config.position_embedding_antialias
    backbone = ViTCoMerBackbone(config)
    assert type(backbone.trunk) is ViTMSNTrunk
    assert backbone.no_weight_decay() == {
        "spatial_pyramid.level_embed",
        "trunk.model.embeddings.cls_token",
        "trunk.model.embeddings.position_embeddings",
    }
    model = ViTMSNModel(ViTMSNConfig(**one_more_family))
    backbone = ViTCoMerBackbone.from_trunk(model, depths=[1, 0, 1, 0]).eval()
    weight = "layers.1.mlp.fc1.weight"
    torch.testing.assert_close(backbone.trunk.model.state_dict()[weight], model.state_dict()[weight])
    assert backbone(images(64, 96)).feature_maps[0].shape == (2, 32, 16, 24)


def test_what_a_family_cannot_is_refused(one_more_family: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window_sizes needs timm's VisionTransformer or Beit as the trunk, got vit_"):
        tiny_config(trunk_config=one_more_family, window_sizes=[2, 0], use_prefix_tokens=False)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_class_says_what_it_is(library: str) -> None:
    for name, trunk in LIBRARIES[library].items():
        assert trunk.undecayed and trunk.layers_name, name
        assert not trunk.__abstractmethods__, name


FAMILIES = TIMM_TRUNKS.keys() | TRANSFORMERS_TRUNKS.keys()
CLASSES = {trunk.__name__ for trunks in LIBRARIES.values() for trunk in trunks.values()}
OTHERS = ["configuration_vit_comer", "modeling_vit_comer", "initialization", "trunk_sources", "conversion"]


@pytest.mark.parametrize("module", OTHERS)
def test_others_know_no_family(module: str) -> None:
    """Neither by a string that is its name, nor by an import of its class, the library's or ours."""
    tree = ast.walk(ast.parse((Path(modeling_vit_comer.__file__).parent / f"{module}.py").read_text()))
    strings, names = set(), set()
    for node in tree:
        if isinstance(node, ast.Constant):
            strings.add(node.value)
        elif isinstance(node, ast.alias):
            names.add(node.name)
    assert not strings & FAMILIES and not names & (FAMILIES | CLASSES)
