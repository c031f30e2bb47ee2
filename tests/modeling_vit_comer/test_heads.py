"""Every dense prediction head of transformers that takes a backbone, trained one step on ours, saved and reloaded."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.configuration_vit_comer import ALL_STAGES
from modeling_vit_comer.spatial_pyramid import PyramidBatchNorm
from tiny import tiny_config, wake_up


BATCH, HEIGHT, WIDTH, NUM_LABELS = 2, 64, 96, 3
Batch = dict[str, Any]


def boxes() -> Batch:
    """Two objects in each image, as the DETR family takes them."""
    label = {
        "class_labels": torch.tensor([0, 2]),
        "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.4, 0.6]]),
    }
    return {"labels": [label] * BATCH}


def boxes_of_phrases() -> Batch:
    """Boxes and the sentence "a . b . c ." in the ids of BERT's special tokens, which Grounding DINO looks for."""
    input_ids = torch.tensor([[101, 5, 1012, 6, 1012, 7, 1012, 102]] * BATCH)
    return boxes() | {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def masks() -> Batch:
    """Two masks in each image."""
    mask_labels = torch.zeros(2, HEIGHT, WIDTH)
    mask_labels[0, :40, :50] = mask_labels[1, 40:, 50:] = 1
    return {"mask_labels": [mask_labels] * BATCH, "class_labels": [torch.tensor([0, 2])] * BATCH}


def label_image() -> Batch:
    return {"labels": torch.randint(NUM_LABELS, (BATCH, HEIGHT, WIDTH))}


class Head(NamedTuple):
    model: str
    config: str
    stages: tuple[int, ...]
    labels: Callable[[], Batch]
    fields: dict[str, Any]

    def build(self) -> PreTrainedModel:
        stages = [f"stage{index}" for index in self.stages]
        backbone_config = tiny_config(out_features=stages, layer_scale_init_value=0.1)
        config = getattr(transformers, self.config)(
            backbone_config=backbone_config, num_labels=NUM_LABELS, **self.fields
        )
        model = getattr(transformers, self.model)(config)
        wake_up(model)
        return model

    def inputs(self) -> Batch:
        return {"pixel_values": torch.randn(BATCH, 3, HEIGHT, WIDTH)} | self.labels()


ENCODER = {"encoder_layers": 1, "encoder_ffn_dim": 32, "encoder_attention_heads": 2}
DECODER = {"decoder_layers": 2, "decoder_ffn_dim": 32, "decoder_attention_heads": 2, "num_queries": 6}
DETR = ENCODER | DECODER | {"d_model": 32}
MULTI_SCALE = DETR | {"num_feature_levels": 3}
RT_DETR = MULTI_SCALE | {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 32, 32],
    "decoder_in_channels": [32, 32, 32],
    "num_denoising": 4,
}
MASK2FORMER = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "num_attention_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 6,
    "train_num_points": 64,
}
MASKFORMER = {
    "fpn_feature_size": 32,
    "mask_feature_size": 32,
    "decoder_config": {"model_type": "detr", "use_timm_backbone": False} | DETR,
}
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GROUNDING_DINO = MULTI_SCALE | {"text_config": BERT, "max_text_len": 16}

HEADS = {
    "mask2former": Head("Mask2FormerForUniversalSegmentation", "Mask2FormerConfig", (1, 2, 3, 4), masks, MASK2FORMER),
    "maskformer": Head("MaskFormerForInstanceSegmentation", "MaskFormerConfig", (1, 2, 3, 4), masks, MASKFORMER),
    "upernet": Head("UperNetForSemanticSegmentation", "UperNetConfig", (1, 2, 3, 4), label_image, {"hidden_size": 16}),
    "detr": Head("DetrForObjectDetection", "DetrConfig", (4,), boxes, DETR),
    "conditional_detr": Head("ConditionalDetrForObjectDetection", "ConditionalDetrConfig", (4,), boxes, DETR),
    "table_transformer": Head("TableTransformerForObjectDetection", "TableTransformerConfig", (4,), boxes, DETR),
    "dab_detr": Head(
        "DabDetrForObjectDetection", "DabDetrConfig", (4,), boxes, ENCODER | DECODER | {"hidden_size": 32}
    ),
    "deformable_detr": Head("DeformableDetrForObjectDetection", "DeformableDetrConfig", (2, 3, 4), boxes, MULTI_SCALE),
    "rt_detr": Head("RTDetrForObjectDetection", "RTDetrConfig", (2, 3, 4), boxes, RT_DETR),
    "rt_detr_v2": Head("RTDetrV2ForObjectDetection", "RTDetrV2Config", (2, 3, 4), boxes, RT_DETR),
    "d_fine": Head("DFineForObjectDetection", "DFineConfig", (2, 3, 4), boxes, RT_DETR),
    "deimv2": Head("Deimv2ForObjectDetection", "Deimv2Config", (2, 3, 4), boxes, RT_DETR),
    "grounding_dino": Head(
        "GroundingDinoForObjectDetection", "GroundingDinoConfig", (2, 3, 4), boxes_of_phrases, GROUNDING_DINO
    ),
}

# A constant that the batch norm behind it takes away again, in train mode: the gradient is zero but for rounding.
REMOVED_BY_BATCH_NORM = re.compile(
    r"mrfp\.levels\.\d\.convs\.\d\.bias|upsample\.bias|spatial_pyramid\.projections\.0\.bias|extra_ctis\..*\.fc2\.bias"
)


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def head(request: pytest.FixtureRequest) -> Head:
    torch.manual_seed(0)
    return request.param


def backbone_of(model: PreTrainedModel) -> ViTCoMerBackbone:
    (backbone,) = (module for module in model.modules() if isinstance(module, ViTCoMerBackbone))
    return backbone


def unused_prefixes(backbone: ViTCoMerBackbone) -> tuple[str, ...]:
    """Modules that only serve maps which the head does not take."""
    unused = [f"norm.{stage}." for stage in ALL_STAGES if stage not in backbone.out_features]
    if "stage1" not in backbone.out_features:
        unused += ["upsample.", "spatial_pyramid.projections.0."]
    return tuple(unused)


def test_one_training_step(head: Head) -> None:
    model = head.build().train()
    backbone = backbone_of(model)
    before = {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    model(**head.inputs()).loss.backward()
    optimizer.step()

    unused = {name for name in before if name.startswith(unused_prefixes(backbone))}
    certain = {name for name in before if name not in unused and not REMOVED_BY_BATCH_NORM.search(name)}
    parameters = dict(backbone.named_parameters())
    assert {name for name in before if parameters[name].grad is None} == unused
    assert all(parameter.grad.isfinite().all() for parameter in parameters.values() if parameter.grad is not None)
    assert not [name for name in certain if not parameters[name].grad.any()]
    assert not [name for name in certain if torch.equal(parameters[name], before[name])]


def test_batch_norms_of_the_backbone_stay_alive(head: Head) -> None:
    model = head.build().train()
    backbone = backbone_of(model)
    plain = ViTCoMerBackbone(backbone.config)
    assert [type(module) for module in backbone.modules()] == [type(module) for module in plain.modules()]

    model(**head.inputs())

    norms = {name: module for name, module in backbone.named_modules() if isinstance(module, _BatchNorm)}
    used = {name: norm for name, norm in norms.items() if not f"{name}.".startswith(unused_prefixes(backbone))}
    assert all(isinstance(norm, PyramidBatchNorm) for norm in norms.values())
    assert all(norm.weight.requires_grad and norm.bias.requires_grad for norm in norms.values())
    assert not [name for name, norm in used.items() if norm.num_batches_tracked == 0 or not norm.running_mean.any()]


def test_save_and_reload(head: Head, tmp_path: Path) -> None:
    model = head.build().eval()
    model.save_pretrained(tmp_path)
    reloaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert backbone_of(reloaded).out_features == backbone_of(model).out_features
    torch.testing.assert_close(dict(reloaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)

    inputs = {name: value for name, value in head.inputs().items() if "labels" not in name}
    with torch.no_grad():
        expected, actual = model(**inputs), reloaded(**inputs)
        expected_maps, actual_maps = (
            backbone_of(each)(inputs["pixel_values"]).feature_maps for each in (model, reloaded)
        )
    torch.testing.assert_close(actual_maps, expected_maps, rtol=0, atol=0)
    tensors = {name for name, value in expected.items() if isinstance(value, torch.Tensor)}
    assert tensors
    for name in tensors:
        # The heads' own convolutions may round by where in memory their weights lie.
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)
