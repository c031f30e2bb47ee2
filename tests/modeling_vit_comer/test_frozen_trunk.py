"""A trunk that is not trained, or by adapters alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from families import REPRESENTATIVES, family_of, images
from modeling_vit_comer import ViTCoMerBackbone
from tiny import tiny_config, tiny_trunk, wake_up


def build(**fields: Any) -> ViTCoMerBackbone:
    torch.manual_seed(0)
    model = ViTCoMerBackbone(tiny_config(**{"layer_scale_init_value": 0.1} | fields))
    wake_up(model)
    return model


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return sum(feature_map.square().mean() for feature_map in model(images(64, 96)).feature_maps)


@pytest.mark.parametrize("how", ["config", "method", "reloaded"])
def test_freeze_trunk(how: str, tmp_path: Path) -> None:
    model = build(freeze_trunk=how != "method", trunk_config=tiny_trunk(proj_drop_rate=0.1), drop_path_rate=0.2)
    if how == "method":
        model.freeze_trunk()
    if how == "reloaded":
        model.save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    model.train()
    loss_of(model).backward()
    assert not any(module.training for module in model.trunk.modules())
    assert all(stage.training for stage in model.stages)
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("trunk.")}
    assert model.config.freeze_trunk


def blocks_with_a_graph(model: ViTCoMerBackbone) -> list[bool]:
    """Of each block of the trunk, whether the backward pass will go through it."""
    recorded = []
    for layer in model.trunk.layers:
        layer.register_forward_hook(lambda module, inputs, output: recorded.append(output.requires_grad))
    loss_of(model.train())
    return recorded


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.parametrize(
    "use_cti_to_vit, expected", [([False, False], [False, False]), ([False, True], [False, True])]
)
def test_no_graph_where_nothing_needs_it(name: str, use_cti_to_vit: list[bool], expected: list[bool]) -> None:
    """As under `torch.no_grad`: up to the first CTI to ViT, from which on gradients flow through to the pyramid."""
    trunk_config = family_of(name).trunk_config
    fields = {"trunk_config": trunk_config, "depths": [1, 1], "use_cti_to_vit": use_cti_to_vit}
    assert blocks_with_a_graph(build(freeze_trunk=True, **fields)) == use_cti_to_vit
    assert blocks_with_a_graph(build(**fields)) == [True, True]


def test_gradients_are_those_of_the_trained_trunk() -> None:
    """Freezing takes nothing from the others' gradients."""
    frozen, trained = build(freeze_trunk=True), build()
    for model in (frozen, trained):
        loss_of(model.train()).backward()
    for (name, expected), actual in zip(trained.named_parameters(), frozen.parameters(), strict=True):
        if not name.startswith("trunk."):
            torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("freeze_trunk", [False, True])
def test_lora(freeze_trunk: bool, tmp_path: Path) -> None:
    """peft finds the trunk's layers by their plain names; its adapters learn, and merged they are a backbone again."""
    backbone = build(freeze_trunk=freeze_trunk)
    with torch.no_grad():
        before = backbone.eval()(images()).feature_maps
    model = get_peft_model(backbone, LoraConfig(r=4, target_modules=r".*trunk\..*\.(qkv|fc1)")).train()
    for name, parameter in model.named_parameters():
        if ".trunk." not in name:
            parameter.requires_grad_()  # peft freezes all but its adapters
    loss_of(model).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    of_trunk = {name for name in learning if ".trunk." in name}
    assert len(of_trunk) == 2 * 2 * 2 and all("lora_" in name for name in of_trunk)  # blocks, layers, matrices
    assert any(".stages." in name for name in learning)

    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # 0 at the start
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        expected = model.eval()(images()).feature_maps
    model.merge_and_unload().save_pretrained(tmp_path)
    merged = ViTCoMerBackbone.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(merged(images()).feature_maps, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before[0], expected[0], atol=1e-2)


def test_adapters_by_plain_names() -> None:
    model = get_peft_model(build(), LoraConfig(r=2, target_modules=["qkv", "attn.proj"]))
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    prefix = "base_model.model.trunk.layers."
    assert adapted == {f"{prefix}{block}.block.attn.{layer}" for block in (0, 1) for layer in ("qkv", "proj")}
