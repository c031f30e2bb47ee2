"""From the official ViT-CoMer code: its constructor's arguments and its checkpoints."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .configuration_vit_comer import ViTCoMerConfig
from .modeling_vit_comer import ViTCoMerBackbone
from .relative_positions import fit_relative_table


FLAVOURS = ("detection", "segmentation", "co_detr")

COMMON_DEFAULTS: dict[str, Any] = {
    "pretrain_size": 224,
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "layer_scale": True,
    "window_attn": False,
    "window_size": 14,
    "conv_inplane": 64,
    "n_points": 4,
    "deform_num_heads": 6,
    "init_values": 0.0,
    "interaction_indexes": None,
    "with_cffn": True,
    "cffn_ratio": 0.25,
    "deform_ratio": 1.0,
    "add_vit_feature": True,
    "use_extra_CTI": True,
    "use_CTI_toV": True,
    "use_CTI_toC": True,
}
"""Keyword arguments that the official classes take, with their defaults."""

FLAVOUR_DEFAULTS: dict[str, dict[str, Any]] = {
    "detection": {"cnn_feature_interaction": False, "extra_num": 4, "residual_indices": []},
    "segmentation": {"cnn_feature_interaction": True, "dim_ratio": 6.0},
    "co_detr": {
        "cnn_feature_interaction": False,
        "img_size": 512,
        "qkv_bias": False,
        "use_abs_pos_emb": False,
        "use_rel_pos_bias": True,
        "use_shared_rel_pos_bias": False,
        "version": "new",
    },
}

CO_DETR_NAMES = {"use_injector": "use_CTI_toV", "use_extractor": "use_CTI_toC", "use_extra_extractor": "use_extra_CTI"}
"""Arguments that the Co-DETR branch calls by the names of ViT-Adapter."""

IGNORED_ARGUMENTS = {"type", "pretrained", "with_cp", "use_checkpoint", "num_classes"}
"""Arguments that say nothing of the architecture."""

TIMM_ARCHITECTURES = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large"}
BEIT_ARCHITECTURES = {1024: "beit_large"}

RENAMES = [
    *((rf"^spm\.stem\.{3 * i}\.", f"spatial_pyramid.stem.{i}.conv.") for i in range(3)),
    *((rf"^spm\.stem\.{3 * i + 1}\.", f"spatial_pyramid.stem.{i}.norm.") for i in range(3)),
    *((rf"^spm\.conv{i + 2}\.0\.", f"spatial_pyramid.stages.{i}.conv.") for i in range(3)),
    *((rf"^spm\.conv{i + 2}\.1\.", f"spatial_pyramid.stages.{i}.norm.") for i in range(3)),
    *((rf"^spm\.fc{i + 1}\.", f"spatial_pyramid.projections.{i}.") for i in range(4)),
    (r"^level_embed$", "spatial_pyramid.level_embed"),
    (r"^(pos_embed$|patch_embed\.)", r"trunk.embeddings.\1"),
    (r"\.injector\.", ".cti_tov."),
    (r"\.extractor\.", ".cti_toc."),
    (r"\.extra_extractors\.", ".extra_CTIs."),
    (r"\.multiconv\.", ".mrfp."),
    (r"^blocks\.(\d+)\.attn\.relative_position_bias_table$", r"trunk.layers.\1.relative_position_bias.table"),
    (r"^blocks\.(\d+)\.gamma([12])$", r"trunk.layers.\1.block.ls\2.gamma"),
    (r"^blocks\.(\d+)\.residual\.", r"trunk.layers.\1.residual."),
    (r"^blocks\.(\d+)\.", r"trunk.layers.\1.block."),
    (r"^up\.", "upsample."),
    (r"^norm([1234])\.", r"norm.stage\1."),
    *((rf"\.mrfp\.dwconv\.dwconv{k + 1}\.", f".mrfp.levels.{k // 2}.convs.{k % 2}.") for k in range(6)),
    *((rf"\.mrfp\.dwconv\.bn{i + 1}\.", f".mrfp.levels.{i}.norm.") for i in range(3)),
    (r"\.ffn\.dwconv\.dwconv\.", ".ffn.dwconv."),
    (r"\.ffn_norm\.", ".conv_ffn.norm."),
    (r"\.ffn\.", ".conv_ffn.ffn."),
    (r"\.attn\.(sampling_offsets|attention_weights|value_proj|output_proj)\.", r".attention.deform_attention.\1."),
    (r"\.cfinter\.(query_norm|feat_norm)\.", r".interaction.attention.\1."),
    (r"\.cfinter\.", ".interaction."),
    (r"\.cti_tov\.(query_norm|feat_norm)\.", r".cti_to_vit.attention.\1."),
    (r"\.cti_tov\.", ".cti_to_vit."),
    (r"\.(cti_toc|extra_CTIs\.\d+)\.(query_norm|feat_norm)\.", r".\1.interaction.\2."),
    (r"\.cti_toc\.", ".cti_to_cnn."),
    (r"\.feat_norm\.", ".value_norm."),
    (r"^interactions\.\d+\.extra_CTIs\.", "extra_ctis."),
    (r"^interactions\.", "stages."),
]
"""Substitutions that turn an official key into ours, applied one after the other."""

NEVER_READ = re.compile(
    r"^(cls_token|mask_token)$|^(norm|fc_norm|head|lm_head|rel_pos_bias)\."
    r"|^blocks\.\d+\.attn\.relative_position_index$"
)
"""Weights of the trunk's pre-training that a plain ViT checkpoint may hold and the official code ignores; the shared
table that its BEiT builds and does not use; and indices that follow from a window's size."""


def config_from_official(flavour: str, **official_kwargs: Any) -> ViTCoMerConfig:
    """The config that computes what the official class computes.

    Args:
        flavour: "detection", "segmentation" or "co_detr", the BEiT of the branch Co-DETR: the three copies of the
            official class are different models.
        official_kwargs: arguments of the official constructor, as a published config's `backbone=dict(...)` has them.

    Raises:
        ValueError: an unknown flavour or argument, or a combination that the official code cannot run either.
    """
    arguments = _official_arguments(flavour, official_kwargs)
    return ViTCoMerConfig(
        trunk_config=_beit_config(arguments) if flavour == "co_detr" else _trunk_config(arguments),
        depths=_depths(arguments["interaction_indexes"], arguments["depth"]),
        use_prefix_tokens=False,
        window_sizes=_window_sizes(arguments),
        residual_block_indexes=list(arguments.get("residual_indices", [])),
        position_embedding_antialias=False,
        num_channels=arguments["in_chans"],
        conv_stem_channels=arguments["conv_inplane"],
        mrfp_ratio=arguments.get("dim_ratio", 0.5),
        use_cti_to_vit=arguments["use_CTI_toV"],
        use_cti_to_cnn=arguments["use_CTI_toC"],
        use_cnn_feature_interaction=arguments["cnn_feature_interaction"],
        num_extra_cti=arguments.get("extra_num", 4) if arguments["use_extra_CTI"] else 0,
        deform_num_heads=arguments["deform_num_heads"],
        deform_num_points=arguments["n_points"],
        deform_ratio=arguments["deform_ratio"],
        use_conv_ffn=arguments["with_cffn"],
        conv_ffn_ratio=arguments["cffn_ratio"],
        layer_scale_init_value=arguments["init_values"],
        vit_feature_fusion=_fusion(flavour, arguments),
        drop_path_rate=arguments["drop_path_rate"],
    )


def _official_arguments(flavour: str, official_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour must be one of {FLAVOURS}, got {flavour!r}.")
    defaults = COMMON_DEFAULTS | FLAVOUR_DEFAULTS[flavour]
    names = CO_DETR_NAMES if flavour == "co_detr" else {}
    known = {official: defaults[ours] for official, ours in names.items()}
    known |= {name: value for name, value in defaults.items() if name not in names.values()}
    for name in official_kwargs.keys() - known.keys() - IGNORED_ARGUMENTS:
        close = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}."
        raise ValueError(f"The official {flavour} backbone has no argument {name!r}: {hint}")
    known |= {name: value for name, value in official_kwargs.items() if name in known}
    arguments = {names.get(name, name): value for name, value in known.items()}
    if arguments["patch_size"] != 16:
        raise ValueError(f"The official code runs with patches of 16 x 16 pixels only, got {arguments['patch_size']}.")
    has_positions = arguments.get("use_abs_pos_emb", True)
    if has_positions and arguments["pretrain_size"] // 16 != arguments["img_size"] // 16:
        raise ValueError(
            "pretrain_size and img_size must give the same grid of 16 x 16 patches, got "
            f"{arguments['pretrain_size']} and {arguments['img_size']}."
        )
    return arguments


def _trunk_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    size = TIMM_ARCHITECTURES.get(arguments["embed_dim"], "vit_base")
    model_args = {
        "img_size": arguments["img_size"],
        "embed_dim": arguments["embed_dim"],
        "depth": arguments["depth"],
        "num_heads": arguments["num_heads"],
        "mlp_ratio": arguments["mlp_ratio"],
        "qkv_bias": arguments["qkv_bias"],
        "init_values": 1.0 if arguments["layer_scale"] else None,
        "pos_drop_rate": arguments["drop_rate"],
        "proj_drop_rate": arguments["drop_rate"],
        "attn_drop_rate": arguments["attn_drop_rate"],
        "class_token": False,
        "global_pool": "",
    }
    return {"model_type": "timm_wrapper", "architecture": f"{size}_patch16_224", "model_args": model_args}


def _beit_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    size = BEIT_ARCHITECTURES.get(arguments["embed_dim"], "beit_base")
    model_args = {
        "img_size": _beit_image_size(arguments),
        "embed_dim": arguments["embed_dim"],
        "depth": arguments["depth"],
        "num_heads": arguments["num_heads"],
        "mlp_ratio": arguments["mlp_ratio"],
        "qkv_bias": arguments["qkv_bias"],
        # timm reads 0 as none; the official code then has scales too, which a checkpoint fills.
        "init_values": arguments["init_values"] or 1e-6,
        "pos_drop_rate": arguments["drop_rate"],
        "proj_drop_rate": arguments["drop_rate"],
        "attn_drop_rate": arguments["attn_drop_rate"],
        "use_abs_pos_emb": arguments["use_abs_pos_emb"],
        # Whatever use_rel_pos_bias says, the official code has a table in every block, and uses no shared one.
        "use_rel_pos_bias": True,
        "use_shared_rel_pos_bias": False,
    }
    return {"model_type": "timm_wrapper", "architecture": f"{size}_patch16_224", "model_args": model_args}


def _beit_image_size(arguments: Mapping[str, Any]) -> int:
    """Pixels whose grid is the window of the global blocks: their tables are of `window_size`, not of `img_size`."""
    depth, windowed, sizes = (arguments[name] for name in ("depth", "window_attn", "window_size"))
    windowed = windowed if isinstance(windowed, list) else [windowed] * depth
    sizes = sizes if isinstance(sizes, list) else [sizes] * depth
    sides = {size for is_windowed, size in zip(windowed, sizes, strict=True) if not is_windowed}
    if arguments["use_abs_pos_emb"]:
        sides.add(arguments["img_size"] // 16)
    if len(sides) > 1:
        raise ValueError(
            "window_size must be the same for all blocks without window_attn, and with use_abs_pos_emb that of the "
            f"grid of img_size: the official code runs on no image otherwise, got {sorted(sides)}."
        )
    return 16 * sides.pop() if sides else arguments["img_size"]


def _depths(interaction_indexes: list[list[int]] | None, depth: int) -> list[int]:
    """[[0, 2], [3, 5], ...] -> [3, 3, ...]."""
    if not interaction_indexes:
        raise ValueError("interaction_indexes is required: the first and last trunk block of each stage.")
    starts = [indexes[0] for indexes in interaction_indexes]
    stops = [indexes[-1] + 1 for indexes in interaction_indexes]
    if starts != [0, *stops[:-1]] or stops[-1] != depth:
        raise ValueError(
            f"interaction_indexes must cover the blocks 0..{depth - 1} in order and without gaps, got "
            f"{interaction_indexes}."
        )
    return [stop - start for start, stop in zip(starts, stops)]


def _window_sizes(arguments: Mapping[str, Any]) -> list[int] | None:
    """Window size of each block, 0 for global attention; both official arguments are one value or one a block."""
    depth, windowed, sizes = arguments["depth"], arguments["window_attn"], arguments["window_size"]
    windowed = windowed if isinstance(windowed, list) else [windowed] * depth
    sizes = sizes if isinstance(sizes, list) else [sizes] * depth
    if not any(windowed):
        return None
    return [size if is_windowed else 0 for is_windowed, size in zip(windowed, sizes, strict=True)]


def _fusion(flavour: str, arguments: Mapping[str, Any]) -> str:
    version = arguments.get("version", "new")
    if version not in ("new", "old"):
        raise ValueError(f"version must be 'new' or 'old', got {version!r}.")
    if not arguments["add_vit_feature"]:
        return "none"
    return "per_stage" if flavour == "segmentation" or version == "old" else "last"


def split_detector(state_dict: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Separate the backbone of a detector's or segmenter's checkpoint from its other parts.

    Returns:
        The backbone's weights without their `backbone.` prefix, and the keys of all other weights. A state dict
        without such a prefix is a backbone's already.
    """
    prefix = "backbone."
    if not any(key.startswith(prefix) for key in state_dict):
        return dict(state_dict), []
    backbone = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    return backbone, [key for key in state_dict if not key.startswith(prefix)]


def convert_official_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: ViTCoMerConfig
) -> dict[str, torch.Tensor]:
    """Official weights under our names: loads with `strict=True` into `ViTCoMerBackbone(config)`.

    Dropped by name are weights that the official code never reads: the class slot of `pos_embed`, the norms of CTIs
    without feature interaction, the MRFP of stages without CTI to ViT, classifier parts, and whatever is not the
    backbone of a whole detector.

    Raises:
        ValueError: weights are missing, unknown, of another shape or not finite; the message lists them.
    """
    backbone, _ = split_detector(state_dict)
    backbone |= {key: _without_class_token(key, value, config) for key, value in backbone.items()}
    unused = _unused_keys(config)
    converted = {
        official_to_ours(key): value
        for key, value in backbone.items()
        if not NEVER_READ.match(key) and not unused.match(key)
    }
    _check_weights(converted, config)
    return converted


def _without_class_token(key: str, value: torch.Tensor, config: ViTCoMerConfig) -> torch.Tensor:
    """Positions without the slot of the class token, and raw tables of BEiT for the window of their block."""
    height, width = grid = config.trunk_facts.grid_size
    if key == "pos_embed" and value.shape[1] != height * width:
        return value[:, 1:]
    table = re.match(r"blocks\.(\d+)\.attn\.relative_position_bias_table$", key)
    if table is None or math.isqrt(value.shape[0]) ** 2 == value.shape[0]:
        return value
    side = config.window_sizes[int(table[1])] if config.window_sizes else 0
    return fit_relative_table(value, (side, side) if side else grid, num_prefix_tokens=0)


def official_to_ours(key: str) -> str:
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _unused_keys(config: ViTCoMerConfig) -> re.Pattern[str]:
    """Official keys of modules that the official code builds and, with these switches, never calls."""
    patterns = [r"(?!)"]
    last = len(config.depths) - 1
    for stage in range(len(config.depths)):
        if not config.stage_switch("use_cti_to_vit", stage):
            patterns.append(rf"interactions\.{stage}\.(mrfp|multiconv)\.")
        if not config.stage_switch("use_cnn_feature_interaction", stage):
            patterns.append(rf"interactions\.{stage}\.(cti_toc|extractor)\.(query|feat)_norm\.")
    if not config.stage_switch("use_cnn_feature_interaction", last):
        patterns.append(rf"interactions\.{last}\.(extra_CTIs|extra_extractors)\.\d+\.(query|feat)_norm\.")
    return re.compile("|".join(patterns))


def _check_weights(converted: Mapping[str, torch.Tensor], config: ViTCoMerConfig) -> None:
    with torch.device("meta"):
        expected = ViTCoMerBackbone(config).state_dict()
    problems = {
        "missing": expected.keys() - converted.keys(),
        "unknown": converted.keys() - expected.keys(),
        "of another shape": [
            f"{key} (checkpoint {tuple(converted[key].shape)}, config {tuple(expected[key].shape)})"
            for key in expected.keys() & converted.keys()
            if converted[key].shape != expected[key].shape
        ],
        "not finite": [key for key, value in converted.items() if not torch.isfinite(value).all()],
    }
    found = [f"{len(keys)} {problem}: {_listing(keys)}" for problem, keys in problems.items() if keys]
    if found:
        raise ValueError(
            "The checkpoint does not fit the config (another flavour or size?). Weights " + "; ".join(found) + "."
        )


def _listing(keys: Iterable[str], most: int = 8) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:most]) + (f", ... and {len(keys) - most} more" if len(keys) > most else "")
