"""UperNet: a class for each pixel, from all maps."""

import torch
from torch import nn
from torch.nn.functional import batch_norm
from transformers import PreTrainedModel, SegformerImageProcessor, UperNetForSemanticSegmentation

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..semantic import count_labelled_pixels, dense_probabilities, dense_scores, dense_targets, predict_dense


class PooledBatchNorm(nn.BatchNorm2d):
    """With its running statistics where a batch has one value for each channel, of which there is no variance.

    Of a single picture, the map that is pooled to 1 x 1 is such a batch. Several processes share their statistics.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> the same shape."""
        if maps.numel() > maps.shape[1]:
            return super().forward(maps)
        return batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def prepare(model: PreTrainedModel) -> None:
    """Let it learn from batches of one picture."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = PooledBatchNorm


HEAD = Head(
    entry=supported_head(UperNetForSemanticSegmentation),
    tasks=("semantic_segmentation",),
    processor_class=SegformerImageProcessor,
    targets=dense_targets,
    predict=predict_dense,
    scores=dense_scores,
    probabilities=dense_probabilities,
    takes_pixel_mask=False,
    prepare=prepare,
    count=count_labelled_pixels,
)
