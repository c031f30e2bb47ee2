"""`attach`: every supported head on a backbone that exists already."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import (
    DeformableDetrForObjectDetection,
    DetrForObjectDetection,
    MaskFormerForInstanceSegmentation,
    PreTrainedModel,
    ResNetBackbone,
    ResNetConfig,
    RTDetrForObjectDetection,
    RTDetrV2ForObjectDetection,
    Trainer,
    TrainingArguments,
    UperNetForSemanticSegmentation,
    ViTForImageClassification,
)

from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramidBackbone, SimpleFeaturePyramidConfig
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel
from modeling_vit_comer.configuration_vit_comer import ALL_STAGES
from modeling_vit_comer.heads import SUPPORTED_HEADS, attach_head, backbone_of, supported_head
from test_heads import DETR, HEADS, MASKFORMER, MULTI_SCALE, NUM_LABELS, RT_DETR, Head
from tiny import tiny_config, tiny_fields, wake_up


FOLLOWING = ("encoder_in_channels", "decoder_in_channels", "num_feature_levels")
"""Fields that a user need not give: they follow from the backbone."""

UPERNET = {"hidden_size": 16, "num_labels": NUM_LABELS}


def tiny_backbone(**fields: Any) -> ViTCoMerBackbone:
    """A backbone of four maps whose weights are not those of a new one."""
    torch.manual_seed(1)
    backbone = ViTCoMerBackbone(tiny_config(layer_scale_init_value=0.1, **fields)).eval()
    wake_up(backbone)
    return backbone


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def head(request: pytest.FixtureRequest) -> Head:
    return request.param


def model_class(head: Head) -> type[PreTrainedModel]:
    return getattr(transformers, head.model)


def fields_of(head: Head) -> dict[str, Any]:
    return {name: value for name, value in head.fields.items() if name not in FOLLOWING}


def inner_backbone(model: nn.Module, kind: type[nn.Module] = ViTCoMerBackbone) -> Any:
    """The only module of that class, wherever it is."""
    (backbone,) = (module for module in model.modules() if isinstance(module, kind))
    return backbone


def by_hand(head: Head, backbone: ViTCoMerBackbone) -> PreTrainedModel:
    """The head's model as somebody builds it who knows what the head needs."""
    stages = [f"stage{index}" for index in head.stages]
    levels = 4 if head.model in ("DeformableDetrForObjectDetection", "GroundingDinoForObjectDetection") else 3
    fields = head.fields | ({"num_feature_levels": levels} if "num_feature_levels" in head.fields else {})
    backbone_config = tiny_config(out_features=stages, layer_scale_init_value=0.1)
    config = getattr(transformers, head.config)(backbone_config=backbone_config, num_labels=NUM_LABELS, **fields)
    model = model_class(head)(config)
    inner_backbone(model).load_state_dict(backbone.state_dict(), strict=True)
    return model


def everything_of(backbone: PreTrainedModel) -> dict[str, Any]:
    """What `attach` must leave alone."""
    return {
        "config": backbone.config.to_dict(),
        "maps": list(backbone.out_features),
        "training": {name: module.training for name, module in backbone.named_modules()},
        "trained": {name: parameter.requires_grad for name, parameter in backbone.named_parameters()},
        "weights": {name: value.clone() for name, value in backbone.state_dict().items()},
    }


def assert_unchanged(backbone: PreTrainedModel, before: dict[str, Any]) -> None:
    after = everything_of(backbone)
    torch.testing.assert_close(after.pop("weights"), before["weights"], rtol=0, atol=0)
    assert after == {name: value for name, value in before.items() if name != "weights"}


def test_the_table_has_every_head() -> None:
    assert [head.model for head in SUPPORTED_HEADS] == list(dict.fromkeys(head.model for head in SUPPORTED_HEADS))
    table = {(head.model, head.config, head.stages) for head in SUPPORTED_HEADS}
    stages = {name: tuple(f"stage{index}" for index in head.stages) for name, head in HEADS.items()}
    assert table == {(head.model, head.config, stages[name]) for name, head in HEADS.items()}


def test_equal_to_what_is_made_by_hand(head: Head) -> None:
    backbone = tiny_backbone()
    torch.manual_seed(0)
    expected = by_hand(head, backbone)
    drawn = torch.get_rng_state()

    torch.manual_seed(0)
    model = backbone.attach(model_class(head), num_labels=NUM_LABELS, **fields_of(head))

    assert torch.equal(torch.get_rng_state(), drawn)
    assert type(model) is type(expected) and model.training
    torch.testing.assert_close(dict(model.state_dict()), dict(expected.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(dict(backbone_of(model).state_dict()), dict(backbone.state_dict()), rtol=0, atol=0)


def test_a_training_step_leaves_the_backbone_alone(head: Head) -> None:
    backbone = tiny_backbone()
    before = everything_of(backbone)
    model = backbone.attach(model_class(head), num_labels=NUM_LABELS, **fields_of(head))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    model(**head.inputs()).loss.backward()
    optimizer.step()

    inner = inner_backbone(model)
    assert inner is backbone_of(model) is not backbone
    assert not torch.equal(inner.trunk.input_embeddings.proj.weight, backbone.trunk.input_embeddings.proj.weight)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert inner.config is not backbone.config and inner.config.trunk_config is not backbone.config.trunk_config
    assert_unchanged(backbone, before)


def test_other_maps(head: Head) -> None:
    """Three in place of four, and four in place of three or one."""
    stages = ALL_STAGES[1:] if len(head.stages) == 4 else ALL_STAGES
    backbone = tiny_backbone(out_features=["stage4"])
    model = backbone.attach(model_class(head), out_features=tuple(stages), num_labels=NUM_LABELS, **fields_of(head))
    loss = model(**head.inputs()).loss
    loss.backward()
    assert loss.isfinite()
    assert backbone_of(model).out_features == stages and backbone.out_features == ["stage4"]
    looked_at = {name for name, norm in backbone_of(model).norm.items() if norm.weight.grad is not None}
    assert looked_at == (set(stages) if len(head.stages) > 1 else {"stage4"})


def test_of_one_map() -> None:
    """The smallest pyramid of RT-DETRv2, which counts its levels in a field of its own."""
    fields = {name: value for name, value in RT_DETR.items() if name not in FOLLOWING}
    model = tiny_backbone().attach(RTDetrV2ForObjectDetection, out_features=["stage3"], num_labels=3, **fields)
    model(**HEADS["rt_detr_v2"].inputs()).loss.backward()
    assert model.config.decoder_n_levels == model.config.num_feature_levels == 1


def test_of_more_maps_than_levels() -> None:
    fields = {name: value for name, value in MULTI_SCALE.items() if name not in FOLLOWING}
    stages = ["stem", *ALL_STAGES]
    model = tiny_backbone().attach(DeformableDetrForObjectDetection, out_features=stages, num_labels=3, **fields)
    model(**HEADS["deformable_detr"].inputs()).loss.backward()
    assert model.config.num_feature_levels == len(model.model.input_proj) == 5


def test_batch_norms_of_another_backbone_stay_alive() -> None:
    """RT-DETR's config asks for frozen ones, which would freeze a convolutional backbone as it is at the start."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1], layer_type="basic")
    backbone = ResNetBackbone(config)
    fields = {name: value for name, value in RT_DETR.items() if name not in FOLLOWING}
    model = attach_head(backbone, RTDetrForObjectDetection, num_labels=NUM_LABELS, **fields)
    assert list(model.config.encoder_in_channels) == [8, 16, 32]
    inner = inner_backbone(model, ResNetBackbone)
    norms = [module for module in inner.modules() if isinstance(module, nn.BatchNorm2d)]
    model(**HEADS["rt_detr"].inputs()).loss.backward()
    assert len(norms) == len([module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]) > 0
    assert all(norm.num_batches_tracked == 1 and norm.weight.grad is not None for norm in norms)


def test_what_is_given_wins() -> None:
    fields = RT_DETR | {"freeze_backbone_batch_norms": True, "decoder_in_channels": [32, 32, 32]}
    model = tiny_backbone().attach(RTDetrForObjectDetection, **fields)
    assert model.config.freeze_backbone_batch_norms
    model = tiny_backbone().attach(DeformableDetrForObjectDetection, **MULTI_SCALE)
    assert model.config.num_feature_levels == len(model.model.input_proj) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_of_the_backbone(dtype: torch.dtype) -> None:
    backbone = tiny_backbone().to(dtype)
    with torch.no_grad():
        backbone.norm["stage4"].bias.fill_(1 / 3)
    model = backbone.attach(UperNetForSemanticSegmentation, **UPERNET)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    torch.testing.assert_close(dict(model.backbone.state_dict()), dict(backbone.state_dict()), rtol=0, atol=0)


def test_what_is_frozen_stays_frozen() -> None:
    backbone = tiny_backbone(freeze_trunk=True)
    backbone.spatial_pyramid.requires_grad_(False)
    model = backbone.attach(UperNetForSemanticSegmentation, **UPERNET).train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parts = {name.split(".")[1] for name in frozen}
    assert parts == {"trunk", "spatial_pyramid"} and all(name.startswith("backbone.") for name in frozen)
    assert not model.backbone.trunk.training


def test_the_simple_feature_pyramid_has_heads_too() -> None:
    trunk = tiny_fields()["trunk_config"]
    backbone = SimpleFeaturePyramidBackbone(SimpleFeaturePyramidConfig(**tiny_fields(trunk_config=trunk)))
    before = everything_of(backbone)
    fields = {name: value for name, value in RT_DETR.items() if name not in FOLLOWING}
    model = attach_head(backbone, RTDetrForObjectDetection, num_labels=NUM_LABELS, **fields)
    assert type(backbone_of(model)) is SimpleFeaturePyramidBackbone
    model(**HEADS["rt_detr"].inputs()).loss.backward()
    assert_unchanged(backbone, before)


class OwnConfig(ViTCoMerConfig):
    pass


class OwnBackbone(ViTCoMerBackbone):
    config: OwnConfig


def test_a_backbone_that_nobody_registered() -> None:
    """Of the same model type as ours, as another version of the code from the Hub is."""
    model = OwnBackbone(OwnConfig(**tiny_fields())).attach(UperNetForSemanticSegmentation, **UPERNET)
    assert type(backbone_of(model)) is OwnBackbone
    assert type(backbone_of(tiny_backbone().attach(UperNetForSemanticSegmentation, **UPERNET))) is ViTCoMerBackbone


def test_the_trainer_does_not_scale_a_loss_twice(head: Head, tmp_path: Path) -> None:
    """UperNet's `forward` looks as if it knew `num_items_in_batch`, which it ignores."""
    model = tiny_backbone().attach(model_class(head), num_labels=NUM_LABELS, **fields_of(head))
    trainer = Trainer(model=model, args=TrainingArguments(output_dir=tmp_path, report_to="none", use_cpu=True))
    assert trainer.model_accepts_loss_kwargs is (not isinstance(model, UperNetForSemanticSegmentation))


class Derived(UperNetForSemanticSegmentation):
    pass


def test_heads_are_found() -> None:
    model = tiny_backbone().attach(Derived, **UPERNET)
    assert type(model) is Derived
    assert supported_head(Derived) is supported_head(model) is supported_head(UperNetForSemanticSegmentation)
    assert supported_head(model).model_class is UperNetForSemanticSegmentation
    assert backbone_of(model) is model.backbone


def test_a_class_of_the_same_name_is_another_head() -> None:
    impostor = type("UperNetForSemanticSegmentation", (PreTrainedModel,), {})
    with pytest.raises(ValueError, match="UperNetForSemanticSegmentation is not a supported head"):
        supported_head(impostor)


def test_another_class_is_refused() -> None:
    with pytest.raises(ValueError, match="^ViTForImageClassification is not a supported head") as caught:
        tiny_backbone().attach(ViTForImageClassification)
    assert all(head.model in str(caught.value) for head in SUPPORTED_HEADS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_querys": 5}, "DetrConfig has no field 'num_querys': did you mean num_queries"),
        ({"qqq": 5}, "DetrConfig has no field 'qqq': it has .*num_queries"),
        ({"backbone": "resnet50"}, "DetrConfig has no field 'backbone'"),
        ({"use_timm_backbone": True}, "DetrConfig has no field 'use_timm_backbone'"),
        ({"backbone_config": tiny_config()}, "leave backbone_config out"),
        ({"out_features": ["stage5"]}, "out_features must be a subset of stage_names.*stage5"),
        ({"out_features": []}, r"DetrForObjectDetection takes 1 map or more, out_features has \[\]"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_backbone().attach(DetrForObjectDetection, **DETR | fields)


def test_fields_that_every_config_has() -> None:
    fields = DETR | {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}, "hidden_size": 32}
    model = tiny_backbone().attach(DetrForObjectDetection, attn_implementation="eager", **fields)
    assert model.config.num_labels == 2 and model.config.id2label == {0: "cat", 1: "dog"}
    assert model.config._attn_implementation == "eager"


def test_too_few_maps_are_refused() -> None:
    for kind, fields, fewest in (
        (UperNetForSemanticSegmentation, UPERNET, 3),
        (MaskFormerForInstanceSegmentation, MASKFORMER, 2),
    ):
        tiny_backbone().attach(kind, out_features=ALL_STAGES[-fewest:], **fields)
        message = re.escape(f"{kind.__name__} takes {fewest} maps or more, out_features has")
        with pytest.raises(ValueError, match=message):
            tiny_backbone().attach(kind, out_features=ALL_STAGES[1 - fewest :], **fields)


def test_a_model_that_is_no_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="ViTCoMerModel is none"):
        attach_head(ViTCoMerModel(tiny_config()), DetrForObjectDetection, **DETR)
