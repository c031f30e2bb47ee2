"""A head that neither transformers nor the library knows: one file, as anybody would write it."""

from types import SimpleNamespace
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel, SegformerImageProcessor
from transformers.configuration_utils import SubConfigSpec

from dense_prediction.data.samples import IGNORE_INDEX
from dense_prediction.models.head import Head
from dense_prediction.models.semantic import dense_scores, dense_targets, predict_dense
from modeling_vit_comer.heads import SupportedHead


class ToyConfig(PreTrainedConfig):
    model_type = "toy"
    sub_configs_defaults: ClassVar = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="vit_comer")
    }
    backbone_config: PreTrainedConfig | None = None
    scale: float = 1.0


class ToyForSemanticSegmentation(PreTrainedModel):
    """A class for each position of the last map."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.backbone = AutoBackbone.from_config(config.backbone_config)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], config.num_labels, 1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SimpleNamespace:
        logits = self.config.scale * self.classifier(self.backbone(pixel_values).feature_maps[-1])
        loss = None
        if labels is not None:
            size = labels.shape[-2:]
            loss = cross_entropy(interpolate(logits, size=size, mode="bilinear"), labels, ignore_index=IGNORE_INDEX)
        return SimpleNamespace(loss=loss, logits=logits)


HEAD = Head(
    entry=SupportedHead(
        library=__name__,
        model="ToyForSemanticSegmentation",
        config="ToyConfig",
        backbone="backbone",
        stages=("stage3",),
    ),
    tasks=("semantic_segmentation",),
    processor_class=SegformerImageProcessor,
    targets=dense_targets,
    predict=predict_dense,
    scores=dense_scores,
    takes_pixel_mask=False,
)
