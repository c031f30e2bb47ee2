"""The Auto classes: registration, and loading from the Hub, from its cache and from folders."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoBackbone, AutoConfig, AutoModel

import modeling_vit_comer
from hub import serve_hub
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel
from tiny import tiny_config, wake_up


REPOSITORY = "org/vit-comer-b"
CLIENT = Path(__file__).with_name("hub_client.py")

# What is asked of the Hub: the class, the arguments of from_pretrained, and what must come of them.
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("AutoBackbone", {}, {"out_features": ["stage1", "stage2", "stage3", "stage4"]}),
    "out_features": ("AutoBackbone", {"out_features": ["stage2", "stage4"]}, {"out_indices": [2, 4]}),
    "out_indices": ("AutoBackbone", {"out_indices": [0, -1]}, {"out_features": ["stem", "stage4"]}),
    "dtype": ("AutoBackbone", {"dtype": "bfloat16"}, {"dtypes": ["torch.bfloat16"]}),
    "eager": ("AutoBackbone", {"attn_implementation": "eager"}, {"attn_implementation": "eager"}),
    "sdpa": ("AutoBackbone", {"attn_implementation": "sdpa"}, {"attn_implementation": "sdpa"}),
    "model": ("AutoModel", {}, {"class": "ViTCoMerModel"}),
    "backbone": ("ViTCoMerBackbone", {}, {"class": "ViTCoMerBackbone"}),
    "trusted": ("AutoBackbone", {"trust_remote_code": True}, {"module": "modeling_vit_comer.modeling_vit_comer"}),
}
OFFLINE_REQUESTS = ["model", "backbone"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The environment of a client whose Hub has our repository, and that repository's model."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    backbone = ViTCoMerBackbone(tiny_config(layer_scale_init_value=0.1)).eval()
    wake_up(backbone)
    backbone.save_pretrained(root / REPOSITORY)
    # With code in it, transformers would ask whether to trust it, if it did not prefer the package.
    assert (root / REPOSITORY / "modeling_vit_comer.py").is_file()
    with serve_hub(root) as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": "*"}
        yield {"environment": environment, "backbone": backbone}


def run_client(names: list[str], environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What the client got for the requests `names`."""
    requests = [(auto_class, REPOSITORY, arguments) for auto_class, arguments, _ in (REQUESTS[name] for name in names)]
    package = Path(modeling_vit_comer.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, str(CLIENT)],
        input=json.dumps(requests),
        env=os.environ | environment | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(names, json.loads(result.stdout), strict=True))


@pytest.fixture(scope="module")
def from_hub(hub: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return run_client(list(REQUESTS), hub["environment"])


def expected_sums(backbone: ViTCoMerBackbone, stages: list[str]) -> list[float]:
    names = backbone.stage_names
    with torch.no_grad():
        feature_maps = ViTCoMerModel.forward(backbone, torch.ones(1, 3, 64, 96)).feature_maps
    return [feature_maps[names.index(stage)].double().abs().sum().item() for stage in stages]


@pytest.mark.parametrize("name", REQUESTS)
def test_from_the_hub(name: str, hub: dict[str, Any], from_hub: dict[str, dict[str, Any]]) -> None:
    loaded, (auto_class, _, expected) = from_hub[name], REQUESTS[name]
    assert expected.items() <= loaded.items()
    if auto_class == "AutoBackbone":
        assert loaded["class"] == "ViTCoMerBackbone"
    if name not in ("dtype", "model"):
        assert loaded["sums"] == pytest.approx(expected_sums(hub["backbone"], loaded["out_features"]), rel=1e-4)


def test_from_the_cache_offline(hub: dict[str, Any], from_hub: dict[str, dict[str, Any]]) -> None:
    offline = run_client(OFFLINE_REQUESTS, hub["environment"] | {"HF_HUB_OFFLINE": "1"})
    assert offline == {name: from_hub[name] for name in OFFLINE_REQUESTS}


def test_registration() -> None:
    config = AutoConfig.for_model("vit_comer", trunk_config=tiny_config().trunk_config)
    assert type(config) is ViTCoMerConfig
    assert type(AutoModel.from_config(config)) is ViTCoMerModel
    assert type(AutoBackbone.from_config(config)) is ViTCoMerBackbone


@pytest.mark.parametrize("loader", [ViTCoMerBackbone, ViTCoMerModel, AutoModel])
def test_from_a_folder(loader: type, tmp_path: Path) -> None:
    backbone = ViTCoMerBackbone(tiny_config())
    backbone.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is ViTCoMerConfig
    loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, ViTCoMerModel)
    assert not any(report.values()), report
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_registering_again_does_not_raise() -> None:
    importlib.reload(modeling_vit_comer)
    assert type(AutoConfig.for_model("vit_comer")) is ViTCoMerConfig


def test_somebody_elses_registration_is_kept() -> None:
    script = """
from transformers import AutoConfig, PreTrainedConfig
class Theirs(PreTrainedConfig):
    model_type = "vit_comer"
AutoConfig.register("vit_comer", Theirs)
import modeling_vit_comer
assert type(AutoConfig.for_model("vit_comer")) is Theirs
"""
    package = Path(modeling_vit_comer.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
