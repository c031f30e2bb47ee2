"""One line from a pretrained plain ViT to a backbone: every kind of source, and what a mistake ends in."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models import adapt_input_conv, save_for_hf
from torch import nn
from transformers import (
    Dinov2Config,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.testing_utils import CaptureLogger

from families import REPRESENTATIVES, SIZES, TIMM, family_of, images, tokens_of, transformers_family
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel, modeling_vit_comer, trunk_sources
from modeling_vit_comer.trunk_sources import image_statistics
from official import SHARED
from tiny import tiny_trunk


TINY = {"conv_stem_channels": 8, "num_extra_cti": 0, "deform_num_heads": 2, "deform_num_points": 2}
VIT = {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURE = "vit_tiny_patch16_224"


def from_trunk(trunk: Any, **fields: Any) -> ViTCoMerBackbone:
    return ViTCoMerBackbone.from_trunk(trunk, **TINY | fields)


def tiny_vit(**arguments: Any) -> nn.Module:
    sizes = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model(ARCHITECTURE, **sizes | arguments).eval()


def patch_kernel(backbone: ViTCoMerModel) -> torch.Tensor:
    return backbone.trunk.input_embeddings.proj.weight


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# A model that is built already


@pytest.mark.parametrize("name", [*REPRESENTATIVES, "dinov2 with registers", "deit, two class tokens", "eva 02"])
def test_model(name: str) -> None:
    family = family_of(name)
    with torch.no_grad():
        expected = family.tokens(images())
    trunk = from_trunk(family.model).trunk
    torch.testing.assert_close(tokens_of(trunk, images()), expected, rtol=1e-5, atol=1e-5 * expected.std().item())


def test_what_comes_out() -> None:
    vit = tiny_vit()
    torch.manual_seed(0)
    backbone = from_trunk(vit, drop_path_rate=0.2, out_features=["stage2"])
    assert not backbone.training and backbone.config.drop_path_rate == 0.2
    assert backbone.config.trunk_config.architecture == ARCHITECTURE
    assert (backbone.config.hidden_size, backbone.config.depths) == (32, [1, 1, 0, 0])
    assert [tuple(feature_map.shape) for feature_map in backbone(images()).feature_maps] == [(2, 32, 8, 8)]
    assert not any(tensor.is_meta for tensor in [*backbone.parameters(), *backbone.buffers()])
    assert backbone.stages[0].cti_to_vit.gamma.eq(0).all()
    offsets = backbone.stages[0].cti_to_vit.attention.deform_attention.sampling_offsets
    assert offsets.weight.eq(0).all() and offsets.bias.ne(0).any()
    assert backbone.norm["stage1"].running_var.eq(1).all()
    assert isinstance(ViTCoMerModel.from_trunk(vit, **TINY), ViTCoMerModel)


def test_weights_of_a_model_are_copied() -> None:
    vit = tiny_vit()
    before = vit.patch_embed.proj.weight.detach().clone()
    with torch.no_grad():
        patch_kernel(from_trunk(vit)).zero_()
    assert_same(vit.patch_embed.proj.weight.data, before)


def test_weights_of_a_file_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained weight is in memory once."""
    save_file(tiny_vit().state_dict(), tmp_path / "vit.safetensors")
    read = {}

    def read_weights(path: Path) -> dict[str, torch.Tensor]:
        read.update(load_file(path))
        return read

    monkeypatch.setattr(trunk_sources, "read_weights", read_weights)
    backbone = from_trunk(tmp_path / "vit.safetensors", trunk_config=tiny_trunk())
    assert backbone.trunk.layers[0].block.attn.qkv.weight.data_ptr() == read["blocks.0.attn.qkv.weight"].data_ptr()


def test_channels_of_a_model() -> None:
    backbone = from_trunk(tiny_vit(in_chans=5))
    assert backbone.config.num_channels == 5
    assert backbone(torch.randn(1, 5, 64, 64)).feature_maps[0].shape == (1, 32, 16, 16)


@pytest.mark.parametrize("model_class, key", [(ViTModel, ""), (ViTForImageClassification, "vit.")])
def test_transformers_model(model_class: type, key: str) -> None:
    model = model_class(ViTConfig(**VIT)).eval()
    trunk = from_trunk(model).trunk
    assert_same(trunk.model.embeddings.cls_token, model.get_parameter(f"{key}embeddings.cls_token"))


def test_wrapped_timm_model() -> None:
    model = TimmWrapperModel(TimmWrapperConfig(**tiny_trunk()))
    assert_same(patch_kernel(from_trunk(model)), model.timm_model.patch_embed.proj.weight)


# A folder or a file


def test_real_trunk() -> None:
    """DINOv2 ViT-S, 37 x 37 positions: timm's own features at stride 16."""
    folder = SHARED / "data" / "vit_small_patch16_dinov2"
    if not folder.is_dir():
        pytest.skip("the real trunk is not on this machine")
    arguments = {"img_size": 592}
    vit = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True, **arguments).eval()
    vit.load_state_dict({key: value.float() for key, value in load_file(next(folder.glob("*.safetensors"))).items()})
    vit.norm = nn.Identity()
    trunk_config = {"architecture": "vit_small_patch16_224", "model_args": arguments}
    backbone = ViTCoMerModel.from_trunk(folder, trunk_config=trunk_config)
    with torch.no_grad():
        expected = vit.forward_features(images(128, 160, 1))
        actual = backbone(images(128, 160, 1)).last_hidden_state
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    torch.testing.assert_close(tokens_of(backbone.trunk, images(128, 160, 1)), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # gamma is 0


def test_timm_folder(tmp_path: Path) -> None:
    vit = tiny_vit(num_classes=10)
    save_for_hf(vit, tmp_path, safe_serialization=True, model_args={**SIZES})
    backbone = from_trunk(tmp_path)
    assert_same(patch_kernel(backbone), vit.patch_embed.proj.weight)
    assert backbone.config.trunk_config.model_args["depth"] == 2
    single = patch_kernel(from_trunk(str(tmp_path), num_channels=1))
    assert single.shape == (32, 1, 16, 16)  # as timm adapts it


def test_transformers_folder(tmp_path: Path) -> None:
    family = transformers_family("dinov2_with_registers")
    family.model.layernorm = nn.LayerNorm(32)
    family.model.save_pretrained(tmp_path)
    trunk = from_trunk(str(tmp_path)).trunk
    assert_same(trunk.model.embeddings.register_tokens, family.model.embeddings.register_tokens)


def test_patch_resample() -> None:
    vit = tiny_vit(patch_size=8, img_size=32)
    expected = nn.functional.interpolate(vit.patch_embed.proj.weight, size=(16, 16), mode="bilinear")
    assert_same(patch_kernel(from_trunk(vit, patch_resample="bilinear")), expected)
    assert not torch.equal(patch_kernel(from_trunk(vit)), expected)


def test_dtype(tmp_path: Path) -> None:
    """As `from_pretrained`, but float32 is what a half precision file becomes where nothing else is asked for."""
    save_file({key: value.half() for key, value in tiny_vit().state_dict().items()}, tmp_path / "vit.safetensors")
    for dtype, asked in ((torch.float32, {}), (torch.bfloat16, {"dtype": torch.bfloat16})):
        backbone = from_trunk(tmp_path, trunk_config=tiny_trunk(), **asked)
        assert {parameter.dtype for parameter in backbone.parameters()} == {dtype}


# Without weights


@pytest.mark.parametrize(
    "trunk", [tiny_trunk(), TimmWrapperConfig(**tiny_trunk()), ViTConfig(**VIT), {"model_type": "vit"} | VIT]
)
def test_config(trunk: Any) -> None:
    with CaptureLogger(modeling_vit_comer.logger) as log:
        assert from_trunk(trunk, pretrained=False).config.hidden_size == 32
    assert not log.out
    with CaptureLogger(modeling_vit_comer.logger) as log:
        from_trunk(trunk)
    assert "a config brings no weights" in log.out


@pytest.mark.parametrize("prefix", ["", "timm/"])
def test_not_pretrained(prefix: str) -> None:
    backbone = ViTCoMerBackbone.from_trunk(f"{prefix}{ARCHITECTURE}", pretrained=False)
    assert (backbone.config.hidden_size, backbone.config.deform_num_heads) == (192, 6)


def test_nothing_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    """The weights that start at random are none that anybody expected in the trunk's file."""
    from_trunk(tiny_vit())
    assert "MISSING" not in capfd.readouterr().err


# Mistakes


def test_weights_of_another_trunk(tmp_path: Path) -> None:
    save_file(tiny_vit(embed_dim=64).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"another shape: .*cls_token \(1, 1, 64\) for \(1, 1, 32\).* and \d+ more"):
        from_trunk(tmp_path, trunk_config=tiny_trunk())


def test_missing_and_unexpected_weights(tmp_path: Path) -> None:
    weights = tiny_vit(depth=3).state_dict()
    del weights["pos_embed"]
    save_file(weights, tmp_path / "vit.safetensors")
    message = r"missing: embeddings.pos_embed; unexpected: layers.2.block\S+, \S+, \S+ and 9 more"
    with pytest.raises(ValueError, match=message):
        from_trunk(tmp_path, trunk_config=tiny_trunk())


def test_a_head_alone(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(3, 32), "fc.bias": torch.ones(3)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="nothing of this trunk, but embeddings.fc.bias, embeddings.fc.weight"):
        from_trunk(tmp_path, trunk_config=tiny_trunk())


def test_a_head_alone_of_transformers(tmp_path: Path) -> None:
    ViTConfig(**VIT).save_pretrained(tmp_path)
    save_file({"classifier.weight": torch.ones(3, 32)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for \S+, \S+, \S+ and \d+ more of a ViTModel: a head alone?"):
        from_trunk(tmp_path)


def test_not_a_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "vit.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"vit.safetensors cannot be read as safetensors"):
        from_trunk(tmp_path / "vit.safetensors", trunk_config=tiny_trunk())


MISTAKES = {
    "no such model": ("timm/vit_smal_patch16_224", "has no model 'vit_smal_patch16_224'; did you mean vit_small"),
    "nothing like it": ("timm/xyz", r"list_pretrained\('vit_\*'\) lists its plain ViTs"),
    "no such tag": (f"timm/{ARCHITECTURE}.augreg", f"did you mean {ARCHITECTURE}.augreg_in21k"),
    "CNN": ("resnet18", "'resnet18' is a ResNet, not a plain ViT.* supported: .* dinov3_vit"),
    "CNN built": (timm.create_model("resnet18"), "trunk is a ResNet; supported"),
    "some module": (nn.Linear(2, 2), "trunk is a Linear; supported"),
    "other arguments": (tiny_vit(act_layer=nn.ReLU), r"block 0.mlp.act is ReLU\(\), where the architecture has GELU"),
    "shared and own tables": (
        timm.create_model(TIMM["beit, shared bias"][0], **SIZES | TIMM["beit, shared bias"][1]),
        r"unexpected: .*shared_bias.table",
    ),
}


@pytest.mark.parametrize("trunk, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(trunk: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_trunk(trunk)


def test_unknown_families_and_configs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ValueError, match="has model_type 'resnet'; supported"):
        from_trunk(tmp_path)
    with pytest.raises(TypeError, match="trunk must be a name, a folder, a config or a model, got int"):
        from_trunk(3)


def test_trunk_config_is_for_weights_alone() -> None:
    with pytest.raises(ValueError, match="trunk_config is for a safetensors file, or a folder that holds one"):
        from_trunk(tiny_vit(), trunk_config=tiny_trunk())


NO_CLASS_TOKEN = {"class_token": False, "global_pool": "avg"}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"init_values": 1.0},
        {"reg_tokens": 4},
        {"reg_tokens": 4, "no_embed_class": True},
        NO_CLASS_TOKEN,
        NO_CLASS_TOKEN | {"reg_tokens": 1, "no_embed_class": True},
        {"pre_norm": True, "qkv_bias": False, "mlp_ratio": 3},
        {"qk_norm": True, "in_chans": 5, "img_size": 96},
        {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 4},
        {"model_name": "deit_small_distilled_patch16_224"},
    ],
    ids=lambda parts: ", ".join(parts),
)
def test_a_plain_vit_is_known_by_the_shapes_of_its_weights(parts: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"img_size": 64, "embed_dim": 128, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    vit = timm.create_model(**{"model_name": ARCHITECTURE} | sizes | parts).eval()
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    images = torch.rand(1, vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size)
    with torch.no_grad():
        (expected,) = vit.forward_intermediates(images, [1], norm=False, output_fmt="NLC", intermediates_only=True)
    trunk = from_trunk(tmp_path / "vit.safetensors", use_prefix_tokens=True, depths=[1, 1, 0, 0]).trunk
    patches = tokens_of(trunk, images)[:, trunk.num_prefix_tokens :]
    torch.testing.assert_close(patches, expected, rtol=1e-5, atol=1e-5)


def test_a_plain_vit_of_another_patch_size(tmp_path: Path) -> None:
    save_file(tiny_vit(patch_size=8).state_dict(), tmp_path / "vit.safetensors")
    same = from_trunk(tmp_path), from_trunk(tmp_path, trunk_config=tiny_trunk(patch_size=8, num_heads=1))
    assert_same(*(patch_kernel(backbone) for backbone in same))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed": None}, "no plain ViT under timm's names: it has .*, and no pos_embed. Give the trunk_config"),
        ({"pos_embed": torch.zeros(1, 8, 32)}, "Its 8 positions are no square: give the trunk_config"),
        ({"blocks.0.attn.qkv.weight": None}, "and no blocks.0.attn.qkv.weight"),
    ],
)
def test_weights_whose_shapes_do_not_tell(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights = {name: value for name, value in (tiny_vit().state_dict() | change).items() if value is not None}
    save_file(weights, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=message):
        from_trunk(tmp_path)


@pytest.mark.parametrize(
    "trunk", [f"timm/{ARCHITECTURE}", "facebook/dinov2-with-registers-base", "no_such_folder/vit"]
)
def test_offline_and_not_cached(trunk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=re.escape(trunk.removeprefix("timm/"))):
        from_trunk(trunk)


def test_sizes_follow_the_trunk() -> None:
    with pytest.raises(ValueError, match="hidden_size 384 is not that of the trunk, 32: leave it out"):
        from_trunk(tiny_vit(), hidden_size=384)


# Images of other channels


def sources_of_three_channels(folder: Path) -> dict[str, tuple[Any, dict[str, Any], torch.Tensor]]:
    """Each kind of source, the fields that it needs, and its patch kernel."""
    vit, huge = tiny_vit(num_classes=10), family_of("dinov2_with_registers").model
    huge.layernorm = nn.LayerNorm(32)
    save_for_hf(vit, folder / "timm", safe_serialization=True, model_args={**SIZES})
    huge.save_pretrained(folder / "transformers")
    save_file(vit.state_dict(), folder / "weights.safetensors")
    kernel, other = vit.patch_embed.proj.weight.detach(), huge.embeddings.patch_embeddings.projection.weight.detach()
    file_config = {"trunk_config": tiny_trunk(in_chans=3)}
    return {
        "timm model": (vit, {}, kernel),
        "wrapped model": (TimmWrapperModel(TimmWrapperConfig(**tiny_trunk())).eval(), {}, torch.zeros(0)),
        "transformers model": (huge, {}, other),
        "timm folder": (folder / "timm", {}, kernel),
        "transformers folder": (folder / "transformers", {}, other),
        "file": (folder / "weights.safetensors", file_config, kernel),
        "config": (ViTConfig(**VIT), {"pretrained": False}, torch.zeros(0)),
        "timm config": (tiny_trunk(in_chans=3), {"pretrained": False}, torch.zeros(0)),
        "dinov3": (family_of("dinov3_vit").model, {}, torch.zeros(0)),
        "beit": (family_of("beit").model, {}, torch.zeros(0)),
        "dinov2, patches of 14": (family_of("dinov2", image_size=56, patch_size=14).model, {}, torch.zeros(0)),
    }


@pytest.mark.parametrize("num_channels", [1, 2, 4, 7])
def test_other_channels_of_every_source(num_channels: int, tmp_path: Path) -> None:
    for name, (source, fields, kernel) in sources_of_three_channels(tmp_path).items():
        backbone = from_trunk(source, num_channels=num_channels, **fields)
        assert backbone.config.num_channels == num_channels
        with torch.no_grad():
            feature_map = backbone(torch.randn(1, num_channels, 64, 64)).feature_maps[0]
        assert feature_map.shape == (1, 32, 16, 16) and feature_map.isfinite().all(), name
        if kernel.numel():
            embeddings = backbone.trunk.input_embeddings
            actual = getattr(embeddings, "proj", getattr(embeddings, "projection", None)).weight
            assert_same(actual.data, adapt_input_conv(num_channels, kernel))


def test_adapted_channels_see_the_same_image(tmp_path: Path) -> None:
    """A grey image in one channel gives the tokens of three equal ones; a name of timm gives what timm adapts."""
    vit = tiny_vit()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        one, three = from_trunk(vit, num_channels=1).trunk, from_trunk(vit).trunk
        torch.testing.assert_close(tokens_of(one, grey), tokens_of(three, grey.expand(-1, 3, -1, -1)))
    save_for_hf(vit, tmp_path, safe_serialization=True, model_args={**SIZES})
    expected = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=4).patch_embed.proj.weight
    assert_same(patch_kernel(from_trunk(tmp_path, num_channels=4)), expected)


@pytest.mark.parametrize(
    "trunk",
    [
        Dinov2Config(num_channels=5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
        {"model_type": "vit", "num_channels": 5} | VIT,
        tiny_trunk(in_chans=5),
        TimmWrapperConfig(**tiny_trunk(in_chans=5)),
    ],
    ids=["dinov2", "vit", "timm", "timm_wrapper"],
)
def test_channels_of_a_config(trunk: Any, tmp_path: Path) -> None:
    for backbone in (from_trunk(trunk, pretrained=False), ViTCoMerBackbone(ViTCoMerConfig(trunk_config=trunk))):
        assert backbone.config.num_channels == 5
        assert backbone.spatial_pyramid.stem[0].conv.in_channels == 5
        assert backbone.trunk.num_channels == 5
    for fields in ({}, {"num_channels": 3}):
        saved = from_trunk(trunk, pretrained=False, **fields)
        saved.save_pretrained(tmp_path)
        assert ViTCoMerConfig.from_pretrained(tmp_path).num_channels == fields.get("num_channels", 5)


def test_channels_that_cannot_be_adapted() -> None:
    for num_channels in (1, 3, 4):
        with pytest.raises(
            ValueError, match=f"images of 5 channels, and num_channels is {num_channels}: only one of 3"
        ):
            from_trunk(tiny_vit(in_chans=5), num_channels=num_channels)


def test_statistics_of_other_channels(tmp_path: Path) -> None:
    save_for_hf(tiny_vit(), tmp_path, safe_serialization=True, model_args={**SIZES})
    (mean, std), (four, _) = (image_statistics(tmp_path, None, channels) for channels in (None, 4))
    assert len(mean) == len(std) == 3 and four == [*mean, mean[0]]
    assert image_statistics(tmp_path, None, 1) == ([sum(mean) / 3], [sum(std) / 3])
