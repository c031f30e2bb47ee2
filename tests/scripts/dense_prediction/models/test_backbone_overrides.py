"""Names that a recipe may change in a backbone's config, and a published trunk in the place of the config's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig, ViTConfig

from dense_prediction.errors import UserError
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.options import BackboneOptions
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerPreTrainedModel


@pytest.fixture
def checkpoint(backbone_file: Path, tmp_path: Path) -> str:
    build_backbone(BackboneOptions(config=str(backbone_file))).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dephts": [1]}, r"backbone.overrides.dephts: ViTCoMerConfig has no such field; did you mean depths\?"),
        ({"model_type": "simple_pyramid"}, r"model_type=simple_pyramid cannot .*did you mean simple_feature_pyramid"),
        (
            {"trunk_config": {"model_agrs": {}}},
            r"model_agrs: TimmWrapperConfig has .*did you mean model_args",
        ),
        ({"trunk_config": {"model_type": "vitt"}}, r"trunk_config.model_type=vitt cannot .*did you mean vit"),
        ({"depths": [1]}, r"the backbone's config is wrong: depths must be .* sum to the trunk's 4 blocks, got \[1\]"),
    ],
)
@pytest.mark.parametrize("source", ["config", "checkpoint"])
def test_a_misspelt_override_is_explained(
    source: str, overrides: dict[str, Any], message: str, backbone_file: Path, checkpoint: str
) -> None:
    place = {"config": str(backbone_file)} if source == "config" else {"checkpoint": checkpoint}
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(BackboneOptions(**place, overrides=overrides))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_another_library_s_trunk_can_be_named(backbone_file: Path) -> None:
    trunk = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    with torch.device("meta"):
        backbone = build_backbone(BackboneOptions(config=str(backbone_file), overrides={"trunk_config": trunk}))
    assert isinstance(backbone.config.trunk_config, ViTConfig)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `from_trunk` was asked for; nothing is downloaded."""
    asked: dict[str, Any] = {}

    def from_trunk(cls: type[ViTCoMerPreTrainedModel], trunk: str, **fields: Any) -> ViTCoMerPreTrainedModel:
        if trunk == "timm/none":
            raise OSError("there is\nno timm/none")
        asked.update(fields, trunk=trunk, cls=cls)
        args = {"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 2}
        trunk_config = {"architecture": "vit_tiny_patch16_224", "model_args": args}
        return cls(cls.config_class(trunk_config=trunk_config, **fields))

    monkeypatch.setattr(ViTCoMerPreTrainedModel, "from_trunk", classmethod(from_trunk), raising=False)
    return asked


def test_a_published_trunk_takes_the_place_of_the_config_s(published: dict[str, Any], backbone_file: Path) -> None:
    fields = {"config": str(backbone_file), "trunk": "timm/x", "freeze_trunk": True}
    backbone = build_backbone(BackboneOptions(**fields, overrides={"num_extra_cti": 0}), ["stage2", "stage4"])
    assert isinstance(backbone, ViTCoMerBackbone)
    assert backbone.config.hidden_size == 64, "the config's own trunk has 32"
    assert (backbone.config.depths, backbone.config.num_extra_cti) == ([1, 1, 1, 1], 0)
    assert backbone.out_features == ["stage2", "stage4"]
    assert not any(parameter.requires_grad for parameter in backbone.trunk.parameters())
    assert "trunk_config" not in published


def test_the_baseline_takes_a_published_trunk(published: dict[str, Any], backbone_file: Path) -> None:
    overrides = {"model_type": "simple_feature_pyramid"}
    build_backbone(BackboneOptions(config=str(backbone_file), trunk="timm/x", overrides=overrides))
    assert issubclass(published["cls"].config_class, PreTrainedConfig)
    assert published["cls"].config_class.model_type == "simple_feature_pyramid"


@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoint": "x"},
        {"config": "x", "trunk_weights": "y"},
        {"config": "x", "overrides": {"trunk_config": {}}},
    ],
)
def test_two_trunks_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="backbone.trunk=timm/x brings a trunk and its weights: it needs"):
        build_backbone(BackboneOptions(trunk="timm/x", **fields))


@pytest.mark.usefixtures("published")
def test_a_trunk_that_is_not_found_is_one_line(backbone_file: Path) -> None:
    with pytest.raises(UserError, match=r"^backbone.trunk=timm/none: there is no timm/none$"):
        build_backbone(BackboneOptions(config=str(backbone_file), trunk="timm/none"))
