"""ViT-CoMer: Vision Transformer with convolutional multi-scale feature interaction (CVPR 2024, arXiv 2403.07392)."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import nn
from torch.nn import functional as F
from transformers.backbone_utils import BackboneMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging, output_capturing
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_vit_comer import ALL_STAGES, STRIDES, ViTCoMerConfig
from .function_transforms import refuse_transforms
from .heads import HeadModel, attach_head
from .initialization import initialize
from .interaction import CTIToCNN, InteractionStage, add_residual, resize
from .spatial_pyramid import PyramidBatchNorm, PyramidShape, SpatialPyramid, to_map
from .trunk import NO_SPLIT_MODULES, RECORDED_OUTPUTS, PositionedGrid, Trunk, build_trunk
from .trunk_parts import image_size, keep_size
from .trunk_sources import find_trunk, no_report_of_random_weights, pretrained_weights


logger = logging.get_logger(__name__)

SIZE_MULTIPLE = 32
"""The pyramid needs images of a multiple of this many pixels; others are padded at the right and bottom."""

AUTO_MAP = {
    "AutoConfig": "configuration_vit_comer.ViTCoMerConfig",
    "AutoModel": "modeling_vit_comer.ViTCoMerModel",
    "AutoBackbone": "modeling_vit_comer.ViTCoMerBackbone",
}
"""Where the Auto classes find our code in a saved folder."""


@dataclass
class ViTCoMerModelOutput(ModelOutput):
    """Output of [`ViTCoMerModel`].

    Args:
        last_hidden_state: (batch, prefix + height * width, hidden_size), the trunk's tokens after its last block.
        feature_maps: stem and stages 1 to 4, (batch, hidden_size, ceil(H / stride), ceil(W / stride)).
        hidden_states: input of the first trunk block and output of each one, where asked for.
        attentions: (batch, heads, tokens, tokens) of each trunk block, where asked for, with "eager" attention only.
    """

    last_hidden_state: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ViTCoMerPreTrainedModel(PreTrainedModel):
    config: ViTCoMerConfig
    config_class: type[ViTCoMerConfig]
    trunk: Trunk
    base_model_prefix = "vit_comer"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    # None inside another: FSDP2 shards from the inside out, in whatever order somebody goes through them.
    _no_split_modules = ["SpatialPyramid", *NO_SPLIT_MODULES, "MRFP", "CTIToViT", "CTIToCNN"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs = RECORDED_OUTPUTS
    _input_embed_layer = "patch_embed"

    def post_init(self) -> None:
        # Those of the trunk too, and only what is there: FSDP's default wrapping looks for each.
        models = [module for module in self.trunk.modules() if isinstance(module, PreTrainedModel)]
        named = set(self._no_split_modules or ()).union(*(model._no_split_modules or () for model in models))
        self._no_split_modules = sorted(named & {type(module).__name__ for module in self.modules()})
        super().post_init()

    def __getstate__(self) -> dict[str, Any]:
        # transformers' hooks for hidden states do not pickle, and it installs them again when it needs them.
        forget_output_hooks(self)
        return super().__getstate__()

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            f"torch.jit.script cannot compile {type(self).__name__}: the code of its trunk is not TorchScript. Use "
            "torch.export.export(model, (images,)), or torch.jit.trace(model, images, strict=False), whose graph "
            "takes images of that size only."
        )

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in transformers, with the code beside the weights (`trust_remote_code=True`), for all our Auto classes.

        AutoBackbone reads neither folders nor the cache without a network, AutoModel does: a folder needs both.
        """
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_trunk(
        cls,
        trunk: str | Path | dict[str, Any] | PreTrainedConfig | nn.Module,
        *,
        pretrained: bool = True,
        patch_resample: str = "pi",
        **config_fields: Any,
    ) -> Self:
        """ViT-CoMer on a plain ViT: the trunk with its pretrained weights, all else with random ones, in eval mode.

        What of the config is not given follows the trunk: the sizes of the paper's table for T, S, B and L.

        Args:
            trunk:
                - a name of timm, `"timm/vit_small_patch14_dinov2.lvd142m"`, with or without `timm/`;
                - a model of timm's or of transformers' format: its name on the Hub, or its folder;
                - a safetensors file, or a folder with one and no config.json, together with the `trunk_config` that
                  says what it is; a plain ViT under timm's names needs none, the shapes of its tensors tell;
                - a model already built by either library, whose weights are copied;
                - a config of transformers, or a `trunk_config` as a dictionary: these bring no weights.
            pretrained: `False` for random weights, for which nothing but a config is downloaded.
            patch_resample: how a patch kernel of another size becomes 16 x 16, `"pi"` (FlexiViT, arXiv 2212.08013)
                or `"bilinear"`, as the official DINOv2 checkpoints of ViT-CoMer were made.
            config_fields: of [`ViTCoMerConfig`], for example `freeze_trunk=True` or `drop_path_rate=0.3`.

        Raises:
            OSError: the name is unknown on the Hub, or offline and not in the cache.
            ValueError: the trunk is not supported, its weights do not fit, or a field of the config is wrong.

        Example:

        ```python
        >>> from modeling_vit_comer import ViTCoMerBackbone

        >>> backbone = ViTCoMerBackbone.from_trunk("timm/vit_small_patch16_224", pretrained=False)
        ```
        """
        source = find_trunk(trunk, config_fields.pop("trunk_config", None))
        config_fields = {"num_channels": source.num_channels} | config_fields
        config = cls.config_class(trunk_config=source.trunk_config, **config_fields)
        if not (pretrained and source.has_weights):
            if pretrained:
                logger.warning("from_trunk: a config brings no weights, the trunk's are random (pretrained=False).")
            return cls(config).eval()
        weights, dtype = pretrained_weights(source, config, patch_resample), config.dtype or torch.get_default_dtype()
        with no_report_of_random_weights():
            # Takes the tensors as they are, so that a pretrained weight is never in memory twice.
            return cls.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that no weight decay may pull to zero, beside vectors and scalars, as timm asks.

        Those are tables of positions, levels and tokens:

        ```python
        >>> from timm.optim import param_groups_layer_decay

        >>> groups = param_groups_layer_decay(backbone, no_weight_decay_list=backbone.no_weight_decay())
        ```
        """
        tables = {f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.Embedding)}
        tables |= {name for name, _ in self.named_parameters() if name.endswith("level_embed")}
        return tables | {f"trunk.{name}" for name in self.trunk.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Layers for a learning rate that falls with the depth of the trunk, as timm asks for them.

        Args:
            coarse: all blocks of the trunk are one layer, instead of one each.

        Returns:
            Patterns of names of parameters: the trunk's embeddings, the first layer, and its blocks. All else, which
            is trained from scratch, matches none, and timm makes it the last layer, of the full learning rate.
        """
        blocks = rf"trunk\.{re.escape(self.trunk.layers_name)}\."
        return {"embeddings": rf"(?!{blocks})trunk\.", "blocks": blocks if coarse else rf"{blocks}(\d+)\."}

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For custom code transformers leaves out modules without weights of their own, such as the deformable
        # attention, lest an initialisation overwrite loaded weights. Ours only calls `transformers.initialization`.
        super()._initialize_weights(module, is_custom_code=False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The official initialisation. The trunk's weights are meant to be loaded; untrained, they get timm's."""
        self.trunk.initialize(module)
        initialize(module, self.config)


class ViTCoMerModel(ViTCoMerPreTrainedModel):
    """The two branches, their interactions, and the four maps they end in (paper, Figure 3).

    It takes images (batch, num_channels, H, W) of any H and W from 32 pixels.
    """

    _auto_class: Any = "AutoModel"  # of type None in transformers

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.spatial_pyramid = SpatialPyramid(config.num_channels, config.conv_stem_channels, size)
        self.trunk = build_trunk(config)
        self._trunk_weights = frozenset(name for name, _ in self.trunk.named_parameters())
        self.stages = nn.ModuleList(InteractionStage(config, index) for index in range(len(config.depths)))
        use_interaction = config.stage_switch("use_cnn_feature_interaction", len(config.depths) - 1)
        self.extra_ctis = nn.ModuleList(
            CTIToCNN(config, use_interaction, config.use_conv_ffn) for _ in range(config.num_extra_cti)
        )
        self.upsample = nn.ConvTranspose2d(size, size, kernel_size=2, stride=2)
        self.norm = nn.ModuleDict({name: PyramidBatchNorm(size) for name in ALL_STAGES})
        self.post_init()
        self.train()

    def freeze_trunk(self) -> None:
        """Do not train the trunk's weights, and keep its dropout and drop path off."""
        self.config.freeze_trunk = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "ViTCoMerModel":
        super().train(mode)
        if self.config.freeze_trunk:
            # Here, because `from_pretrained` makes new parameters after the constructor, and then calls `eval`.
            for name, parameter in self.trunk.eval().named_parameters():
                if name in self._trunk_weights:  # and not an adapter's, which peft has put beside them
                    parameter.requires_grad_(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk.input_embeddings

    def forward_stages(
        self, pixel_values: torch.Tensor, stage_names: list[str]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The trunk's last tokens, and the maps of `stage_names`."""
        refuse_transforms(pixel_values)
        size = self.check_image(pixel_values)
        pixel_values = pad_to_multiple(pixel_values.to(self.dtype), SIZE_MULTIPLE)
        self.trunk.set_attn_implementation(self.config._attn_implementation)

        stem, pyramid = self.spatial_pyramid(pixel_values)
        tokens, context = self.trunk(pixel_values)
        shape = PyramidShape(context.height, context.width)

        stage_tokens, first_block = [], 0
        for stage, depth in zip(self.stages, self.config.depths):
            blocks = partial(self.run_blocks, context=context, start=first_block, stop=first_block + depth)
            tokens, pyramid = stage(tokens, pyramid, shape, blocks)
            first_block += depth
            stage_tokens.append(shape.patch_tokens(tokens))
        for extra_cti in self.extra_ctis:
            pyramid = extra_cti(pyramid, stage_tokens[-1], shape)

        feature_maps = self.fuse_branches(stem, pyramid, stage_tokens, shape, stage_names)
        return tokens, [crop_to_stride(feature_maps[name], size, STRIDES[name]) for name in stage_names]

    def run_blocks(self, tokens: torch.Tensor, context: PositionedGrid, start: int, stop: int) -> torch.Tensor:
        return self.trunk(tokens, context, start, stop)[0]

    def fuse_branches(
        self,
        stem: torch.Tensor,
        pyramid: torch.Tensor,
        stage_tokens: list[torch.Tensor],
        shape: PyramidShape,
        stage_names: list[str],
    ) -> dict[str, torch.Tensor]:
        """Add the branches at every scale and normalise: the maps of `stage_names`, (batch, hidden_size, h, w).

        A device map may have put their last layers on different devices.
        """
        levels = dict(zip(ALL_STAGES[1:], shape.to_maps(pyramid)))
        if "stage1" in stage_names:
            upsampled = self.upsample(levels["stage2"])
            levels["stage1"] = add_residual(upsampled, stem.to(upsampled.device), self.upsample)
        feature_maps = {"stem": stem}
        for index, name in enumerate(ALL_STAGES):
            if name in stage_names:
                feature_maps[name] = self.norm[name](self.add_vit_feature(levels[name], index, stage_tokens, shape))
        return feature_maps

    def add_vit_feature(
        self, level: torch.Tensor, index: int, stage_tokens: list[torch.Tensor], shape: PyramidShape
    ) -> torch.Tensor:
        if self.config.vit_feature_fusion == "none":
            return level
        tokens = stage_tokens[index if self.config.vit_feature_fusion == "per_stage" else -1]
        return level + resize(to_map(tokens, *shape), level.shape[-2:]).to(level.device)

    def check_image(self, pixel_values: torch.Tensor) -> tuple[int, int]:
        """Height and width of the images, or an error that says what is wrong with them."""
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values must be (batch, {self.config.num_channels}, height, width), got "
                f"{tuple(pixel_values.shape)}. For images of other channels set num_channels in the config."
            )
        height, width = image_size(pixel_values)
        if height < SIZE_MULTIPLE or width < SIZE_MULTIPLE:
            raise ValueError(
                f"Images must have at least {SIZE_MULTIPLE} x {SIZE_MULTIPLE} pixels, one cell of the stride 32 map, "
                f"got {height} x {width}. Resize or pad them."
            )
        return height, width

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> ViTCoMerModelOutput:
        r"""
        Args:
            pixel_values: (batch, num_channels, H, W), H and W of at least 32.
        """
        tokens, feature_maps = self.forward_stages(pixel_values, list(STRIDES))
        return ViTCoMerModelOutput(last_hidden_state=tokens, feature_maps=tuple(feature_maps))


class ViTCoMerBackbone(BackboneMixin, ViTCoMerModel):
    """ViT-CoMer for the dense prediction heads of transformers. Its weights have the names of [`ViTCoMerModel`]'s."""

    _auto_class = "AutoBackbone"

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__(config)
        self.num_features = [config.hidden_size] * len(self.stage_names)

    @property
    def strides(self) -> dict[str, int]:
        """Stride in pixels of each map that the backbone returns."""
        return {name: STRIDES[name] for name in self.out_features}

    def attach(
        self, head_class: type[HeadModel], /, *, out_features: list[str] | None = None, **head_fields: Any
    ) -> HeadModel:
        """A head of transformers round a copy of this backbone: see [`~heads.attach_head`].

        Args:
            head_class: for example `RTDetrV2ForObjectDetection`; the error for another class lists all of them.
            out_features: other maps than the head's usual ones.
            head_fields: of the head's config, for example `num_labels=80`.
        """
        return attach_head(self, head_class, out_features=out_features, **head_fields)

    @can_return_tuple
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        r"""
        Args:
            pixel_values: (batch, num_channels, H, W), H and W of at least 32.

        Returns:
            `feature_maps`, one for each of `out_features`: (batch, hidden_size, ceil(H / stride), ceil(W / stride)).
        """
        _, feature_maps = self.forward_stages(pixel_values, self.out_features)
        return BackboneOutput(feature_maps=tuple(feature_maps))  # type: ignore[arg-type]  # annotated as of one map


def forget_output_hooks(model: nn.Module) -> None:
    """Take off the hooks by which transformers captures hidden states and attentions while a call asks for them."""
    for module in model.modules():
        hooks = module._forward_hooks
        for key in [key for key, hook in hooks.items() if hook.__module__ == output_capturing.__name__]:
            del hooks[key]
        if isinstance(module, PreTrainedModel):
            module._output_capturing_hooks_installed = False  # type: ignore[assignment]  # torch's types, see above


def ceil_divide(size: int, divisor: int) -> int:
    # Not -(-size // divisor) or size % divisor: torch.compile cannot reason about those for a dynamic size.
    return (size + divisor - 1) // divisor


def pad_to_multiple(pixel_values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Zeros at the right and bottom."""
    height, width = image_size(pixel_values)
    padded_height, padded_width = (ceil_divide(size, multiple) * multiple for size in (height, width))
    return F.pad(keep_size(pixel_values), (0, padded_width - width, 0, padded_height - height))


def crop_to_stride(feature_map: torch.Tensor, size: tuple[int, int], stride: int) -> torch.Tensor:
    """The part of a map that lies on the image: ceil(H / stride) x ceil(W / stride)."""
    height, width = (ceil_divide(side, stride) for side in size)
    return feature_map[..., :height, :width]


__all__ = ["ViTCoMerPreTrainedModel", "ViTCoMerModel", "ViTCoMerBackbone"]
