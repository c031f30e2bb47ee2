"""Loads models in a process of its own, because huggingface_hub reads its environment once, at import.

Takes from stdin a list of `[auto class, repository, keyword arguments]` and writes to stdout what came of each.
"""

import json
import sys
from typing import Any

import torch
import transformers

import modeling_vit_comer


def load(auto_class: str, repository: str, arguments: dict[str, Any]) -> dict[str, Any]:
    loader = getattr(modeling_vit_comer, auto_class, None) or getattr(transformers, auto_class)
    model = loader.from_pretrained(repository, **arguments).eval()
    with torch.no_grad():
        output = model(torch.ones(1, 3, 64, 96))
    return {
        "class": type(model).__name__,
        "module": type(model).__module__,
        "out_features": model.config.out_features,
        "out_indices": model.config.out_indices,
        "attn_implementation": model.config._attn_implementation,
        "dtypes": sorted({str(parameter.dtype) for parameter in model.parameters()}),
        "sums": [feature_map.double().abs().sum().item() for feature_map in output.feature_maps],
    }


json.dump([load(*request) for request in json.load(sys.stdin)], sys.stdout)
