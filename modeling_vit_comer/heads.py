"""The heads of transformers that take a backbone of ours: what the package knows of each, and how one is attached.

Everything here goes by a class's name until the class itself is needed: transformers imports a model's module when it
is first asked for it, and thirteen of them would make the import of this package slow.
"""

import copy
import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar, cast

import transformers
from torch import nn
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from .configuration_vit_comer import ALL_STAGES


HeadModel = TypeVar("HeadModel", bound=PreTrainedModel)
Settings = Callable[[dict[str, Any], list[int]], dict[str, Any]]


def no_settings(fields: dict[str, Any], channels: list[int]) -> dict[str, Any]:
    return {}


def maskformer_settings(fields: dict[str, Any], channels: list[int]) -> dict[str, Any]:
    """The losses of the decoder's inner layers are made of their outputs, which have to be asked for."""
    return {"output_hidden_states": True} if fields.get("use_auxiliary_loss") else {}


def deformable_detr_settings(fields: dict[str, Any], channels: list[int]) -> dict[str, Any]:
    """The official four levels, of which the last ones are made from the last map where there are fewer maps."""
    return {"num_feature_levels": max(4, len(channels))}


def rt_detr_settings(fields: dict[str, Any], channels: list[int]) -> dict[str, Any]:
    """RT-DETR and its successors: their defaults are those of a ResNet-50 that was trained before."""
    encoder_size = fields.get("encoder_hidden_dim", transformers.RTDetrConfig.encoder_hidden_dim)
    return {
        "encoder_in_channels": list(channels),
        "decoder_in_channels": [encoder_size] * len(channels),
        "encode_proj_layers": [len(channels) - 1],
        "num_feature_levels": len(channels),
        "freeze_backbone_batch_norms": False,
    }


def rt_detr_v2_settings(fields: dict[str, Any], channels: list[int]) -> dict[str, Any]:
    return rt_detr_settings(fields, channels) | {"decoder_n_levels": len(channels)}


@dataclass(frozen=True, kw_only=True)
class SupportedHead:
    """What this package needs to know of a head.

    Attributes:
        library: the module that has both classes.
        model: name of the model's class.
        config: name of its config's class; `configuration_heads` has one of the same name, which carries our code.
        backbone: dotted path of the backbone inside the model.
        stages: the maps that the head takes from the backbone by default.
        fewest_stages: it cannot be built, or cannot run, with fewer maps than this.
        settings: the given fields of the head's config and the channels of each map -> fields that follow from them.
        accepts_loss_kwargs: `False` where HF's Trainer takes the model for one that divides its loss by
            `num_items_in_batch`, which it does not: its loss would be scaled twice.
        auto_class: the Auto class that has to be told of the config which carries our code; most find the model by
            the config's name.
    """

    library: str = "transformers"
    model: str
    config: str
    backbone: str
    stages: tuple[str, ...]
    fewest_stages: int = 1
    settings: Settings = no_settings
    accepts_loss_kwargs: bool = True
    auto_class: str | None = None

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return cast(type[PreTrainedModel], getattr(import_module(self.library), self.model))

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        return cast(type[PreTrainedConfig], getattr(import_module(self.library), self.config))


ALL, FROM_STRIDE_8, LAST = (tuple(ALL_STAGES[first:]) for first in (0, 1, 3))

SUPPORTED_HEADS = (
    SupportedHead(
        model="UperNetForSemanticSegmentation",
        config="UperNetConfig",
        backbone="backbone",
        stages=ALL,
        fewest_stages=3,
        accepts_loss_kwargs=False,
    ),
    SupportedHead(
        model="Mask2FormerForUniversalSegmentation",
        config="Mask2FormerConfig",
        backbone="model.pixel_level_module.encoder",
        stages=ALL,
        fewest_stages=3,
        # The only Auto class of the image segmentation pipeline that could find this model and MaskFormer's.
        auto_class="AutoModelForImageSegmentation",
    ),
    SupportedHead(
        model="MaskFormerForInstanceSegmentation",
        config="MaskFormerConfig",
        backbone="model.pixel_level_module.encoder",
        stages=ALL,
        fewest_stages=2,
        settings=maskformer_settings,
        auto_class="AutoModelForImageSegmentation",
    ),
    SupportedHead(model="DetrForObjectDetection", config="DetrConfig", backbone="model.backbone.model", stages=LAST),
    SupportedHead(
        model="ConditionalDetrForObjectDetection",
        config="ConditionalDetrConfig",
        backbone="model.backbone.model",
        stages=LAST,
    ),
    SupportedHead(
        model="DabDetrForObjectDetection",
        config="DabDetrConfig",
        backbone="model.backbone.conv_encoder.model",
        stages=LAST,
    ),
    SupportedHead(
        model="TableTransformerForObjectDetection",
        config="TableTransformerConfig",
        backbone="model.backbone.conv_encoder.model",
        stages=LAST,
    ),
    SupportedHead(
        model="DeformableDetrForObjectDetection",
        config="DeformableDetrConfig",
        backbone="model.backbone.model",
        stages=FROM_STRIDE_8,
        settings=deformable_detr_settings,
    ),
    SupportedHead(
        model="GroundingDinoForObjectDetection",
        config="GroundingDinoConfig",
        backbone="model.backbone.conv_encoder.model",
        stages=FROM_STRIDE_8,
        settings=deformable_detr_settings,
    ),
    SupportedHead(
        model="RTDetrForObjectDetection",
        config="RTDetrConfig",
        backbone="model.backbone.model",
        stages=FROM_STRIDE_8,
        settings=rt_detr_settings,
    ),
    SupportedHead(
        model="RTDetrV2ForObjectDetection",
        config="RTDetrV2Config",
        backbone="model.backbone.model",
        stages=FROM_STRIDE_8,
        settings=rt_detr_v2_settings,
    ),
    SupportedHead(
        model="DFineForObjectDetection",
        config="DFineConfig",
        backbone="model.backbone.model",
        stages=FROM_STRIDE_8,
        settings=rt_detr_settings,
    ),
    SupportedHead(
        model="Deimv2ForObjectDetection",
        config="Deimv2Config",
        backbone="model.conv_encoder.model",
        stages=FROM_STRIDE_8,
        settings=rt_detr_settings,
    ),
)


def supported_head(model: PreTrainedModel | type[PreTrainedModel]) -> SupportedHead:
    """The entry of a model or of its class, or of the class that it derives from.

    Raises:
        ValueError: it is none of `SUPPORTED_HEADS`.
    """
    model_class = model if isinstance(model, type) else type(model)
    names = [base.__name__ for base in model_class.__mro__]
    for head in SUPPORTED_HEADS:
        if head.model in names and issubclass(model_class, head.model_class):
            return head
    supported = ", ".join(head.model for head in SUPPORTED_HEADS)
    raise ValueError(f"{model_class.__name__} is not a supported head; these are: {supported}.")


def backbone_of(model: PreTrainedModel) -> PreTrainedModel:
    """The backbone inside the model of a supported head."""
    return cast(PreTrainedModel, model.get_submodule(supported_head(model).backbone))


def attach_head(
    backbone: PreTrainedModel,
    head_class: type[HeadModel],
    /,
    *,
    entry: SupportedHead | None = None,
    out_features: Sequence[str] | None = None,
    **head_fields: Any,
) -> HeadModel:
    """A head with random weights round a copy of `backbone`, in training mode, as `head_class(config)` makes it.

    The backbone itself stays as it is. Its copy returns the maps that the head wants; what was frozen stays frozen.
    The model gets the backbone's device and dtype.

    Args:
        backbone: a [`ViTCoMerBackbone`], or another backbone with stages of the same names.
        head_class: one of `SUPPORTED_HEADS`.
        entry: what those say of each head, for a class that is none of them.
        out_features: other maps than those.
        head_fields: of the head's config, for example `num_labels=80`. They win over what follows from the backbone.

    Raises:
        ValueError: the head is not supported, a field is unknown, or the head cannot take these maps.

    Example:

    ```python
    >>> from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
    >>> from transformers import RTDetrV2ForObjectDetection

    >>> backbone = ViTCoMerBackbone(ViTCoMerConfig())
    >>> model = backbone.attach(RTDetrV2ForObjectDetection, num_labels=80)
    ```
    """
    head = entry or supported_head(head_class)
    refuse_unknown_fields(head.config_class, head_fields)
    if not isinstance(backbone, BackboneMixin):
        raise ValueError(f"a head needs a backbone such as ViTCoMerBackbone, and {type(backbone).__name__} is none.")
    config = config_of_copy(backbone, head, out_features)
    channels = [backbone.out_feature_channels[stage] for stage in config.out_features]
    fields = {"backbone_config": config} | head.settings(head_fields, channels) | head_fields
    model = like(backbone, head_class(head.config_class(**fields)))
    copy_weights(backbone, model.get_submodule(head.backbone))
    if not head.accepts_loss_kwargs:
        model.accepts_loss_kwargs = False  # type: ignore[assignment]  # torch's types: tensors and modules only
    return model


def refuse_unknown_fields(config_class: type[PreTrainedConfig], fields: dict[str, Any]) -> None:
    """Refuse what a config of transformers would keep as an attribute that nothing reads."""
    if "backbone_config" in fields:
        raise ValueError("leave backbone_config out: it is that of the backbone to which the head is attached.")
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    known = known - {"backbone_config"} | {"num_labels", "attn_implementation"}
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(sorted(known))}."
            raise ValueError(f"{config_class.__name__} has no field {name!r}: {hint}")


def config_of_copy(
    backbone: PreTrainedModel, head: SupportedHead, out_features: Sequence[str] | None
) -> PreTrainedConfig:
    """The backbone's config with the maps that the head takes, and known to the Auto class that builds it there."""
    stages = list(head.stages if out_features is None else out_features)
    if len(stages) < head.fewest_stages:
        fewest = "1 map" if head.fewest_stages == 1 else f"{head.fewest_stages} maps"
        raise ValueError(f"{head.model} takes {fewest} or more, out_features has {stages}.")
    config = copy.deepcopy(backbone.config)
    config.out_features = stages
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        # A class that nobody has registered, such as one fetched from the Hub by its name. By the class itself: its
        # model type may be that of other code.
        AutoBackbone.register(type(config), type(backbone))
    return config


def like(backbone: PreTrainedModel, model: HeadModel) -> HeadModel:
    """The model with the device and dtype of the backbone."""
    # torch's own `to`: that of transformers is the same for a model that is not quantised, and has lost its types.
    moved = nn.Module.to(model, backbone.device)
    # Not without need: buffers that are to be more precise than the weights would be rounded.
    return moved if model.dtype == backbone.dtype else nn.Module.to(moved, backbone.dtype)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """All weights and buffers, and which of them are not to be trained."""
    target.load_state_dict(source.state_dict(), strict=True)
    frozen = {name for name, parameter in source.named_parameters() if not parameter.requires_grad}
    for name, parameter in target.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
