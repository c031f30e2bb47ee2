"""Configuration of ViT-CoMer."""

import dataclasses
import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any, Optional, Self, TypeVar

import timm  # noqa: F401  # the loader of remote code names missing packages of this file, and not of its siblings
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.generation import GenerationConfig

from .presets import preset_path
from .trunk import TrunkFacts, channels_of, check_abilities, trunk_facts
from .trunk_parts import PATCH_SIZE, RGB, pair


STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
"""Stride of each stage, in pixels. The stem is the convolutional map before any interaction."""

DEFORM_HEADS = {192: 6, 384: 6, 768: 12, 1024: 16}
"""Deformable heads of the published sizes T, S, B and L, by hidden size."""

ALL_STAGES = ["stage1", "stage2", "stage3", "stage4"]
VIT_FEATURE_FUSIONS = ("last", "per_stage", "none")

# What a saved config.json may hold beside our fields and the base class's own.
DERIVED_FIELDS = ("stage_names", "hidden_size", "num_hidden_layers", "image_size", "patch_size")
BASE_FIELDS = {"model_type", "auto_map", "torch_dtype", "num_labels", "name_or_path", "output_attentions"}
BASE_FIELDS |= {"attn_implementation", "experts_implementation", "per_layer_config", "quantization_config"}

T = TypeVar("T")
if TYPE_CHECKING:
    # For those who read a config: a field that is None in the call alone, because the constructor fills it in.
    Filled = Annotated[T, None]
    TrunkConfig = Any
else:
    Filled, TrunkConfig = Optional, dict | PreTrainedConfig | None
UNFILLED: Any = None


@strict
class ViTCoMerConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    Configuration of a [`ViTCoMerModel`] or a [`ViTCoMerBackbone`]. The defaults make ViT-CoMer-B for detection on a
    plain ViT-B/16.

    Args:
        trunk_config (`PreTrainedConfig` or `dict`, *optional*):
            The plain ViT: a `timm_wrapper` config with the timm `architecture` and the `model_args` that
            `timm.create_model` takes, or the config of a ViT of transformers, of one of the types in
            `modeling_vit_comer.trunk.MODEL_TYPES`. It describes the pretrained model; the trunk made from it has
            patches of 16 x 16 pixels. Defaults to timm's `vit_base_patch16_224`.
        depths (`list[int]`, *optional*):
            Trunk blocks in each interaction stage. Their sum is the number of the trunk's blocks. Defaults to the
            blocks divided evenly into four stages.
        use_prefix_tokens (`bool`, *optional*, defaults to `True`):
            Keep the trunk's class and register tokens in its attention. The official code drops them.
        window_sizes (`list[int]`, *optional*):
            For each trunk block, the side in tokens of its attention windows, 0 for global attention. Defaults to
            global attention everywhere.
        residual_block_indexes (`list[int]`, *optional*, defaults to `[]`):
            Trunk blocks that are followed by a convolutional residual bottleneck, as in ViTDet.
        position_embedding_antialias (`bool`, *optional*):
            Antialias when position embeddings are resized to another grid. Defaults to what the trunk's own library
            does for its family. The official code does not.
        num_channels (`int`, *optional*):
            Channels of the image. Defaults to those of `trunk_config`, which are nearly always 3.
        conv_stem_channels (`int`, *optional*, defaults to 64):
            Channels of the convolutional stem at stride 4.
        mrfp_ratio (`float`, *optional*, defaults to 0.5):
            Inner channels of the MRFP, as a multiple of the hidden size.
        mrfp_kernel_sizes (`list[int]`, *optional*, defaults to `[3, 5]`):
            Depthwise kernel sizes of the MRFP, odd; each takes an equal share of the inner channels.
        use_cti_to_vit, use_cti_to_cnn (`bool` or `list[bool]`, *optional*, defaults to `True`):
            The two directions of interaction, for all stages or for each one.
        use_cnn_feature_interaction (`bool` or `list[bool]`, *optional*, defaults to `True`):
            Let the levels attend to each other in CTI to CNN. `False` only adds the trunk's tokens to the pyramid.
        num_extra_cti (`int`, *optional*, defaults to 4):
            CTIs to CNN after the last stage.
        deform_num_heads (`int`, *optional*):
            Heads of the deformable attention. Defaults to those of the published sizes (6, 6, 12, 16 for hidden sizes
            192, 384, 768, 1024), else to one for every 64 channels.
        deform_num_points (`int`, *optional*, defaults to 4):
            Sampled points for each head and level.
        deform_ratio (`float`, *optional*):
            Channels of the attention's values, as a multiple of the hidden size. Defaults to 1 below a hidden size of
            768, else to 0.5.
        use_conv_ffn (`bool`, *optional*, defaults to `True`):
            Convolutional FFNs in CTI to CNN. CTI to ViT always has one.
        conv_ffn_ratio (`float`, *optional*, defaults to 0.25):
            Inner channels of the convolutional FFNs, as a multiple of the hidden size.
        layer_scale_init_value (`float`, *optional*, defaults to 0.0):
            Initial value of gamma, the scale of what CTI to ViT adds to the trunk.
        vit_feature_fusion (`str`, *optional*, defaults to `"last"`):
            Trunk features that are added to the four maps at the end: `"last"`, the last stage's for every map
            (official detection code); `"per_stage"`, stage i's for map i (official segmentation code; four stages);
            `"none"`.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth: the rate of every interaction, and the end of the linear ramp over the trunk's blocks.
        freeze_trunk (`bool`, *optional*, defaults to `False`):
            Do not train the trunk's weights.
        out_features (`list[str]`, *optional*):
            Maps to return, of `"stem"`, `"stage1"`, ..., `"stage4"`. Where neither this nor `out_indices` is given,
            the four stages, strides 4 to 32.
        out_indices (`list[int]`, *optional*):
            The same by index: 0 is the stem.

    Example:

    ```python
    >>> from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig

    >>> trunk = {"architecture": "vit_small_patch16_224"}
    >>> config = ViTCoMerConfig(trunk_config=trunk, depths=[3, 3, 3, 3])
    >>> backbone = ViTCoMerBackbone(config)
    ```
    """

    model_type = "vit_comer"
    sub_configs_defaults = {
        "trunk_config": SubConfigSpec(
            AutoConfig, model_type="timm_wrapper", init_kwargs={"architecture": "vit_base_patch16_224"}
        )
    }

    trunk_config: TrunkConfig = None
    depths: Filled[list[int] | tuple[int, ...]] = UNFILLED
    use_prefix_tokens: bool = True
    window_sizes: list[int] | tuple[int, ...] | None = None
    residual_block_indexes: list[int] | tuple[int, ...] = ()
    position_embedding_antialias: Filled[bool] = UNFILLED
    num_channels: Filled[int] = UNFILLED
    conv_stem_channels: int = 64
    mrfp_ratio: float | int = 0.5
    mrfp_kernel_sizes: list[int] | tuple[int, ...] = (3, 5)
    use_cti_to_vit: bool | list[bool] | tuple[bool, ...] = True
    use_cti_to_cnn: bool | list[bool] | tuple[bool, ...] = True
    use_cnn_feature_interaction: bool | list[bool] | tuple[bool, ...] = True
    num_extra_cti: int = 4
    deform_num_heads: Filled[int] = UNFILLED
    deform_num_points: int = 4
    deform_ratio: Filled[float | int] = UNFILLED
    use_conv_ffn: bool = True
    conv_ffn_ratio: float | int = 0.25
    layer_scale_init_value: float | int = 0.0
    vit_feature_fusion: str = "last"
    drop_path_rate: float | int = 0.0
    freeze_trunk: bool = False
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """The config of a published size, for example `"vit-comer-s"`, with `changes` of its fields.

        Raises:
            FileNotFoundError: the package is not installed, and this code came with a model from the Hub.
            ValueError: there is no such preset, or no such field.
        """
        fields = json.loads(preset_path(name).read_text(encoding="utf-8"))
        fields.pop("model_type")
        return cls(**fields | changes)

    def __post_init__(self, **kwargs: Any) -> None:
        self.stage_names = list(STRIDES)
        if "out_features" not in kwargs and "out_indices" not in kwargs:
            kwargs["out_features"] = list(ALL_STAGES)
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        derived = {name: kwargs.pop(name) for name in DERIVED_FIELDS if name in kwargs}
        self._refuse_unknown_fields(kwargs)
        super().__post_init__(**kwargs)
        self._read_trunk()
        self._refuse_other_sizes(derived)
        self._resolve_defaults()
        self._validate_stages()
        self._validate_sizes()

    def _refuse_unknown_fields(self, kwargs: dict[str, Any]) -> None:
        if self.transformers_version is not None:
            return  # read from a saved file: other code may have added attributes before it was saved
        known = BASE_FIELDS | set(dir(self)) | set(GenerationConfig().to_dict())
        for name in kwargs.keys() - known:
            if not name.startswith("_"):
                close = difflib.get_close_matches(name, [field.name for field in dataclasses.fields(self)], n=2)
                hint = f"did you mean {' or '.join(close)}?" if close else "see the docstring of ViTCoMerConfig."
                raise ValueError(f"ViTCoMerConfig has no field {name!r}: {hint}")

    def _refuse_other_sizes(self, derived: dict[str, Any]) -> None:
        if self.transformers_version is not None:
            return  # read from a saved file, perhaps with another trunk_config
        if "image_size" in derived:
            derived["image_size"] = list(pair(derived["image_size"]))
        for name, value in derived.items():
            if value != getattr(self, name):
                raise ValueError(f"{name} {value} is not that of the trunk, {getattr(self, name)}: leave it out.")

    def _read_trunk(self) -> None:
        if self.num_channels is None:
            # A saved file leaves out what is as in a config without arguments.
            self.num_channels = channels_of(self.trunk_config) if self.transformers_version is None else RGB
        facts = self.trunk_facts
        self.hidden_size = facts.hidden_size
        self.num_hidden_layers = facts.num_hidden_layers
        self.image_size = [PATCH_SIZE * side for side in facts.grid_size]
        self.patch_size = PATCH_SIZE
        for name in ("patch_drop_rate", "dynamic_img_pad"):
            if value := self.trunk_model_args.get(name):
                raise ValueError(
                    f"{name} {value} in trunk_config.model_args: leave it out, all tokens are needed, and images are "
                    "padded already."
                )
        if self.use_prefix_tokens and facts.num_prefix_tokens and any(self.window_sizes or ()):
            raise ValueError("window_sizes needs tokens without class and register tokens: use_prefix_tokens=False.")
        check_abilities(self)

    @property
    def trunk_facts(self) -> TrunkFacts:
        """Sizes of the pretrained trunk."""
        return trunk_facts(self.trunk_config, self.trunk_model_args)

    @property
    def trunk_model_args(self) -> dict[str, Any]:
        """Arguments for `timm.create_model` beside the architecture's name. The trunk has no classifier."""
        fixed = {"drop_path_rate": self.drop_path_rate, "num_classes": 0}
        # `trunk_config` says what the pretrained model takes, and not what is made of it.
        return fixed | (getattr(self.trunk_config, "model_args", None) or {}) | {"in_chans": self.num_channels}

    def _resolve_defaults(self) -> None:
        if self.depths is None:
            stage, rest = divmod(self.num_hidden_layers, len(ALL_STAGES))
            self.depths = [stage + (i < rest) for i in range(len(ALL_STAGES))]
        if self.position_embedding_antialias is None:
            self.position_embedding_antialias = self.trunk_facts.antialias
        if self.deform_num_heads is None:
            self.deform_num_heads = DEFORM_HEADS.get(self.hidden_size, max(1, self.hidden_size // 64))
        if self.deform_ratio is None:
            self.deform_ratio = 1.0 if self.hidden_size < 768 else 0.5

    def _validate_stages(self) -> None:
        if min(self.depths, default=-1) < 0 or sum(self.depths) != self.num_hidden_layers:
            raise ValueError(
                f"depths must be non-negative and sum to the trunk's {self.num_hidden_layers} blocks, got "
                f"{list(self.depths)}, {sum(self.depths)} blocks."
            )
        windows = self.window_sizes
        if windows is not None and (len(windows) != self.num_hidden_layers or min(windows) < 0):
            raise ValueError(
                f"window_sizes must give one size >= 0 for each of the trunk's {self.num_hidden_layers} blocks, "
                f"got {list(windows)}."
            )
        if not set(self.residual_block_indexes) <= set(range(self.num_hidden_layers)):
            raise ValueError(
                f"residual_block_indexes must be in 0..{self.num_hidden_layers - 1}, "
                f"got {list(self.residual_block_indexes)}."
            )
        for name in ("use_cti_to_vit", "use_cti_to_cnn", "use_cnn_feature_interaction"):
            switch = getattr(self, name)
            if not isinstance(switch, bool) and len(switch) != len(self.depths):
                raise ValueError(f"{name} must be a bool or one for each of {len(self.depths)} stages, got {switch}.")

    def _validate_sizes(self) -> None:
        if self.vit_feature_fusion not in VIT_FEATURE_FUSIONS:
            raise ValueError(f"vit_feature_fusion must be of {VIT_FEATURE_FUSIONS}, got {self.vit_feature_fusion!r}.")
        if self.vit_feature_fusion == "per_stage" and len(self.depths) != len(ALL_STAGES):
            raise ValueError(f"vit_feature_fusion 'per_stage' needs four stages, got depths {list(self.depths)}.")
        kernel_sizes, inner_size = self.mrfp_kernel_sizes, int(self.hidden_size * self.mrfp_ratio)
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"mrfp_kernel_sizes must be odd and positive, got {list(kernel_sizes)}.")
        if inner_size < 1 or inner_size % len(kernel_sizes):
            raise ValueError(
                f"mrfp_ratio {self.mrfp_ratio} gives {inner_size} channels, not a positive multiple of the "
                f"{len(kernel_sizes)} mrfp_kernel_sizes."
            )
        value_size = int(self.hidden_size * self.deform_ratio)
        if self.deform_num_heads < 1 or value_size < 1 or value_size % self.deform_num_heads:
            raise ValueError(
                f"deform_num_heads {self.deform_num_heads} must divide the {value_size} value channels "
                f"(hidden size {self.hidden_size} * deform_ratio {self.deform_ratio})."
            )

    def stage_switch(self, name: str, stage: int) -> bool:
        """Value in one interaction stage of a switch that is a bool or has one for each stage."""
        switch = getattr(self, name)
        return switch if isinstance(switch, bool) else switch[stage]


__all__ = ["ViTCoMerConfig"]
