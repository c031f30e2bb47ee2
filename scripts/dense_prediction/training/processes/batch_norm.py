"""Batch norms whose statistics are those of the batches of all processes together."""

from typing import TypeVar, cast

import torch
from torch import distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


Model = TypeVar("Model", bound=nn.Module)


def synchronize_batch_norms(model: Model, device: torch.device) -> Model:
    """`model` with every batch norm, ours and the heads' alike, synchronised; for a run of several processes.

    Names and weights stay the same, so that checkpoints and saved models do not show it. The frozen batch norms that
    heads of the DETR family put into a backbone have no statistics to share and stay as they are.
    """
    if device.type != "cpu":
        return cast(Model, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = CpuSyncBatchNorm
    return model


class AllReduce(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        return AllReduce.apply(gradient)


class CpuSyncBatchNorm(_BatchNorm):
    """torch's own, and DDP with it, refuses the CPU; this one needs a reduction only, which every backend has."""

    # Of a batch norm that follows its statistics by a moving average, as all here do.
    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def _check_input_dim(self, feature_map: torch.Tensor) -> None:
        if feature_map.dim() < 2:
            raise ValueError(f"expected (batch, channels, ...), got {feature_map.dim()} dimensions")

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """(batch, channels, ...) -> the same shape; the processes' batches may differ in size."""
        if not self.training:
            return super().forward(feature_map)
        self._check_input_dim(feature_map)
        values = feature_map.float().transpose(0, 1).flatten(1)  # (channels, values of each)
        count = AllReduce.apply(values.new_tensor(values.shape[1]))
        shape = (1, -1, *[1] * (feature_map.dim() - 2))
        mean = AllReduce.apply(values.sum(1)) / count
        # The second pass keeps the digits that the mean of the squares less the square of the mean would lose.
        variance = AllReduce.apply((values - mean[:, None]).square().sum(1)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (feature_map.float() * scale.view(shape) + shift.view(shape)).to(feature_map.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics as every batch norm does, with the unbiased variance."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
