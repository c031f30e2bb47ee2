"""CNN-Transformer bidirectional fusion interaction, CTI (paper, section 3.3, Figure 5)."""

from collections.abc import Callable

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_vit_comer import ViTCoMerConfig
from .deformable_attention import MultiScaleDeformableSelfAttention
from .kernel_choice import is_exporting, kernel_for
from .spatial_pyramid import MRFP, PyramidShape, to_tokens
from .watchers import is_plain


LAYER_NORM_EPS = 1e-6


class ConvFFN(nn.Module):
    """Feed-forward network with one 3 x 3 depthwise convolution, shared by the levels, between its layers."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size)
        self.dwconv = nn.Conv2d(inner_size, inner_size, kernel_size=3, padding=1, groups=inner_size)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(inner_size, hidden_size)

    def forward(self, pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        maps = shape.to_maps(self.fc1(pyramid))
        mixed = torch.cat([to_tokens(self.dwconv(feature_map)) for feature_map in maps], dim=1)
        return self.fc2(self.activation(mixed))


class ResidualConvFFN(nn.Module):
    """`c + drop_path(ConvFFN(norm(c)))`. All interactions drop paths at the config's full rate, as the official."""

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.ffn = ConvFFN(config.hidden_size, int(config.hidden_size * config.conv_ffn_ratio))
        self.drop_path = DropPath(config.drop_path_rate)

    def forward(self, pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        return add_residual(self.drop_path(self.ffn(self.norm(pyramid), shape)), pyramid, self.ffn, self.drop_path)


def add_residual(update: torch.Tensor, stream: torch.Tensor, *sources: nn.Module) -> torch.Tensor:
    """`stream + update`, in the memory of `update` where nobody else can have it: these tensors are the largest.

    Under autocast the stream is wider than the update, and so is the sum.

    Args:
        sources: the modules that `update` came out of.
    """
    in_place = update.dtype == stream.dtype and all(is_plain(source) for source in sources)
    return update.add_(stream) if in_place else stream + update


class NormedDeformableAttention(nn.Module):
    """Deformable self-attention of the pyramid with a layer norm for the queries and one for the values.

    Without the native kernel, training keeps its two inputs only and computes the rest again in the backward pass:
    what torch's sampling would keep is many times their size, and on CPU writing it takes longer than computing it
    twice.
    """

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.value_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.deform_attention = MultiScaleDeformableSelfAttention(
            config.hidden_size, config.deform_num_heads, config.deform_num_points, config.deform_ratio
        )

    def forward(self, query: torch.Tensor, value: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        has_kernel = kernel_for(query.device, query.dtype) is not None
        if has_kernel or not torch.is_grad_enabled() or is_exporting():
            return self.attend(query, value, shape)
        return checkpoint(self.attend, query, value, shape, use_reentrant=False, preserve_rng_state=False)

    def attend(self, query: torch.Tensor, value: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        return self.deform_attention(self.query_norm(query), self.value_norm(value), shape)


class CTIToViT(GradientCheckpointingLayer):
    """CTI from the pyramid to the ViT: attention, FFN, then all levels folded into the trunk's tokens.

    There is no residual round the attention, and `gamma` starts at zero so that the untrained pyramid leaves a
    pretrained trunk as it was.
    """

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        self.attention = NormedDeformableAttention(config)
        self.conv_ffn = ResidualConvFFN(config)
        self.gamma = nn.Parameter(torch.full((config.hidden_size,), float(config.layer_scale_init_value)))

    def forward(self, tokens: torch.Tensor, pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        """`tokens` (batch, prefix + height * width, hidden_size), `pyramid` (batch, num_tokens, hidden_size)."""
        update = self.conv_ffn(self.attention(pyramid, pyramid, shape), shape)
        update = self.gamma * fold(update, shape)
        num_prefix_tokens = tokens.shape[1] - update.shape[1]
        return tokens + F.pad(update, (0, 0, num_prefix_tokens, 0))


def fold(pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
    """Sum of the three levels at stride 16: (batch, num_tokens, channels) -> (batch, height * width, channels)."""
    fine, middle, coarse = shape.to_maps(pyramid)
    return to_tokens(F.avg_pool2d(fine, 2) + middle + resize(coarse, (shape.height, shape.width)))


def resize(feature_map: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if feature_map.shape[-2:] == size:
        return feature_map
    return F.interpolate(feature_map, size=size, mode="bilinear", align_corners=False)


class PyramidInteraction(nn.Module):
    """One round of attention and FFN among the levels of the pyramid.

    The stream itself is normalised, and normalised again inside the attention: the released code does so, and
    published weights need it.
    """

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.value_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.attention = NormedDeformableAttention(config)
        self.conv_ffn = ResidualConvFFN(config) if config.use_conv_ffn else None

    def forward(self, pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        query = self.query_norm(pyramid)
        pyramid = add_residual(self.attention(query, self.value_norm(pyramid), shape), query, self.attention)
        return pyramid if self.conv_ffn is None else self.conv_ffn(pyramid, shape)


class CTIToCNN(GradientCheckpointingLayer):
    """CTI from the ViT to the pyramid: the trunk's patch tokens join stride 16, then the levels interact.

    Args:
        use_interaction: let the levels interact (`use_cnn_feature_interaction` of the config); else only add.
        use_conv_ffn: a convolutional FFN between the two, as the extra CTIs after the last stage have.
    """

    def __init__(self, config: ViTCoMerConfig, use_interaction: bool, use_conv_ffn: bool = False) -> None:
        super().__init__()
        self.conv_ffn = ResidualConvFFN(config) if use_conv_ffn else None
        self.interaction = PyramidInteraction(config) if use_interaction else None

    def forward(self, pyramid: torch.Tensor, patch_tokens: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        """`pyramid` (batch, num_tokens, hidden_size), `patch_tokens` (batch, height * width, hidden_size)."""
        pyramid = shape.add_to_middle(pyramid, patch_tokens)
        if self.conv_ffn is not None:
            pyramid = self.conv_ffn(pyramid, shape)
        if self.interaction is not None:
            pyramid = self.interaction(pyramid, shape)
        return pyramid


class InteractionStage(nn.Module):
    """One stage: MRFP and CTI to ViT, then the trunk's blocks, which are not the stage's own, then CTI to CNN."""

    mrfp: MRFP | None
    cti_to_vit: CTIToViT | None
    cti_to_cnn: CTIToCNN | None

    def __init__(self, config: ViTCoMerConfig, index: int) -> None:
        super().__init__()
        self.mrfp = self.cti_to_vit = self.cti_to_cnn = None
        if config.stage_switch("use_cti_to_vit", index):
            inner_size = int(config.hidden_size * config.mrfp_ratio)
            self.mrfp = MRFP(config.hidden_size, inner_size, config.mrfp_kernel_sizes)
            self.cti_to_vit = CTIToViT(config)
        if config.stage_switch("use_cti_to_cnn", index):
            self.cti_to_cnn = CTIToCNN(config, config.stage_switch("use_cnn_feature_interaction", index))

    def forward(
        self,
        tokens: torch.Tensor,
        pyramid: torch.Tensor,
        shape: PyramidShape,
        run_blocks: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Strengthen the pyramid and write it to the trunk's tokens, run the blocks, write the tokens to the pyramid.

        Args:
            tokens: (batch, prefix + height * width, hidden_size).
            pyramid: (batch, num_tokens, hidden_size).
            run_blocks: the trunk's blocks of this stage.
        """
        if self.mrfp is not None and self.cti_to_vit is not None:
            pyramid = shape.add_to_middle(self.mrfp(pyramid, shape), shape.patch_tokens(tokens))
            tokens = self.cti_to_vit(tokens, pyramid, shape)
        tokens = run_blocks(tokens)
        if self.cti_to_cnn is not None:
            pyramid = self.cti_to_cnn(pyramid, shape.patch_tokens(tokens), shape)
        return tokens, pyramid
