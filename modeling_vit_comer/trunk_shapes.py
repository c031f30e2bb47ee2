"""Which plain ViT of timm a file of weights is, told by the names and shapes of its tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .trunk import TIMM
from .trunk_parts import RGB


Shapes = Mapping[str, Sequence[int]]

NUM_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""Of published ViTs by their hidden sizes, which no shape tells. All others have heads of 64 channels."""

NEEDED = (
    "patch_embed.proj.weight",
    "pos_embed",
    "blocks.0.norm1.bias",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc2.weight",
)


def plain_vit_config(shapes: Shapes) -> dict[str, Any]:
    """The `trunk_config` of a timm `VisionTransformer` whose tensors have these names and shapes.

    Raises:
        ValueError: there is none, or its positions are no square.
    """
    if missing := [name for name in NEEDED if name not in shapes]:
        raise ValueError(
            f"It is no plain ViT under timm's names: it has {', '.join(sorted(shapes)[:4])}, ..., and no "
            f"{missing[0]}. Give the trunk_config that says what it is."
        )
    args = model_args(shapes)
    num_channels = shapes["patch_embed.proj.weight"][1]
    channels = {"in_chans": num_channels} if num_channels != RGB else {}
    return {"model_type": TIMM, "architecture": architecture_of(shapes), "model_args": args | channels}


def architecture_of(shapes: Shapes) -> str:
    """One of timm's with the same parts, of any size."""
    if "dist_token" in shapes:
        return "deit_small_distilled_patch16_224"
    is_gated = shapes["blocks.0.mlp.fc1.weight"][0] != shapes["blocks.0.mlp.fc2.weight"][1]
    return "vit_giant_patch14_dinov2" if is_gated else "vit_small_patch16_224"


def model_args(shapes: Shapes) -> dict[str, Any]:
    """What makes that architecture as large, and all of its parts that can be there or not."""
    hidden_size, _, patch_size, _ = shapes["patch_embed.proj.weight"]
    grid_size, has_prefix_positions = position_grid(shapes)
    args = {
        "img_size": grid_size * patch_size,
        "patch_size": patch_size,
        "embed_dim": hidden_size,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "num_heads": NUM_HEADS.get(hidden_size, max(1, hidden_size // 64)),
        # The first layer of a gated one is as wide as its two halves together.
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / hidden_size,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        # Not None, which timm takes for what the architecture has.
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in shapes else 0.0,
        "pre_norm": "norm_pre.weight" in shapes,
    }
    if "dist_token" in shapes:  # with a class token and positions of both, always
        return args
    tokens = {"class_token": "cls_token" in shapes, "reg_tokens": num_tokens(shapes, "reg_token")}
    # Of the head: without it timm refuses to build one that has no class token.
    pool = {} if "cls_token" in shapes else {"global_pool": "avg"}
    return args | tokens | pool | {"no_embed_class": not has_prefix_positions}


def position_grid(shapes: Shapes) -> tuple[int, bool]:
    """Side of the square of positions, and whether the class token and the registers have positions, too."""
    num_positions = shapes["pos_embed"][1]
    num_prefix = sum(num_tokens(shapes, name) for name in ("cls_token", "dist_token", "reg_token"))
    for num_patches in (num_positions, num_positions - num_prefix):
        if (side := math.isqrt(num_patches)) ** 2 == num_patches:
            return side, num_patches != num_positions
    raise ValueError(f"Its {num_positions} positions are no square: give the trunk_config that says what they are.")


def num_tokens(shapes: Shapes, name: str) -> int:
    return shapes[name][1] if name in shapes else 0
