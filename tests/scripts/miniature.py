"""A tiny backbone, tiny heads and tiny images, with which the scripts run in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


ROOT = Path(__file__).parents[2]

BACKBONE = {
    "model_type": "vit_comer",
    "trunk_config": {
        "model_type": "timm_wrapper",
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 2},
    },
    "depths": [1, 1, 1, 1],
    "conv_stem_channels": 8,
    "num_extra_cti": 1,
    "deform_num_heads": 2,
    "drop_path_rate": 0.3,
}

HEADS: dict[str, dict[str, Any]] = {
    "upernet": {"hidden_size": 16, "auxiliary_channels": 8},
    "mask2former": {
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "num_attention_heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_feedforward_dim": 32,
        "dim_feedforward": 32,
        "num_queries": 8,
        "train_num_points": 64,
    },
}


def draw_rows(count: int) -> list[tuple[Image.Image, Image.Image]]:
    """Images of 40 x 56 pixels whose left half is black and of class 0, the right half white and of class 1."""
    ids = np.zeros((40, 56), dtype=np.uint8)
    ids[:, 28:] = 1
    return [(Image.fromarray(255 * ids).convert("RGB"), Image.fromarray(ids)) for _ in range(count)]
