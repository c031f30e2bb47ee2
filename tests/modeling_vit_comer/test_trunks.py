"""Every family of trunks: the library's own tokens, and then all that a backbone has to bear."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from families import (
    REPRESENTATIVES,
    TIMM,
    TRANSFORMERS,
    Family,
    family_of,
    images,
    timm_family,
    tokens_of,
    transformers_family,
)
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, ViTCoMerModel
from modeling_vit_comer.relative_positions import resize_relative_table
from modeling_vit_comer.trunk import Trunk, build_trunk
from tiny import tiny_config, wake_up


def pretrained_trunk(family: Family, **fields: Any) -> Trunk:
    trunk = build_trunk(tiny_config(trunk_config=family.trunk_config, depths=None, **fields)).eval()
    trunk.load_pretrained(family.model.state_dict())
    return trunk


def pretrained(family: Family, model_class: type = ViTCoMerBackbone, **fields: Any) -> ViTCoMerModel:
    """A tiny model on the family's trunk, in which every part has an effect on the outputs."""
    torch.manual_seed(0)
    small = {"layer_scale_init_value": 0.1, "depths": [2], "num_extra_cti": 0}
    model = model_class(tiny_config(**small | {"trunk_config": family.trunk_config} | fields))
    model.trunk.load_pretrained(family.model.state_dict())
    wake_up(model)
    return model.eval()


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# Faithfulness


@pytest.mark.parametrize("name", [*TIMM, *(f"hf {name}" for name in TRANSFORMERS)])
def test_tokens_are_the_librarys_own(name: str) -> None:
    family = family_of(name)
    trunk = pretrained_trunk(family)
    with torch.no_grad():
        expected = family.tokens(images())
    actual = tokens_of(trunk, images())
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.std().item())
    assert trunk.num_layers == 2 and trunk.hidden_size == 32 and trunk.patch_size == 16


OWN_RESIZING = [name for name in TIMM if not name.startswith("beit")]
OWN_RESIZING += ["hf vit", "hf deit", "dinov2", "dinov2_with_registers", "dinov3_vit"]


@pytest.mark.parametrize("name", OWN_RESIZING)
def test_positions_of_another_grid_are_the_librarys_own(name: str) -> None:
    family = family_of(name, dynamic_img_size=True) if name in TIMM else family_of(name)
    if name in ("hf vit", "hf deit"):
        family = family._replace(
            tokens=lambda pixels: family.model(pixels, interpolate_pos_encoding=True).last_hidden_state
        )
    with torch.no_grad():
        expected = family.tokens(images(96, 160))
    actual = tokens_of(pretrained_trunk(family), images(96, 160))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.std().item())


@pytest.mark.parametrize("name", ["beit", "beit, shared bias"])
def test_beit_on_another_grid(name: str) -> None:
    """timm's own BEiT, made for another image size; the library's interpolation is ours to float precision."""
    family = timm_family(name)
    trunk = pretrained_trunk(family)
    other = timm_family(name, img_size=(96, 160)).model
    weights = {key: value for key, value in family.model.state_dict().items() if not key.endswith("position_index")}
    for key, value in weights.items():
        if key.endswith("relative_position_bias_table"):
            shape = ((2 * 6 - 1) * (2 * 10 - 1) + 3, 2)
            weights[key] = resize_rel_pos_bias_table(value, (6, 10), shape)
        elif key == "pos_embed":
            weights[key] = resample_abs_pos_embed(value, [6, 10], [4, 4])
    other.load_state_dict(weights, strict=False)
    with torch.no_grad():
        expected = other.forward_features(images(96, 160))
    torch.testing.assert_close(tokens_of(trunk, images(96, 160)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("new_window", [(3, 5), (4, 4), (14, 14), (9, 20), (40, 56)])
def test_relative_tables_are_resized_as_in_timm(new_window: tuple[int, int]) -> None:
    table = torch.randn(27 * 27 + 3, 4)
    rows = (2 * new_window[0] - 1) * (2 * new_window[1] - 1) + 3
    expected = resize_rel_pos_bias_table(table, new_window, (rows, 4))
    torch.testing.assert_close(resize_relative_table(table, (14, 14), new_window), expected, rtol=1e-4, atol=1e-4)


def test_hf_beit_on_another_grid() -> None:
    """Resized geometrically as timm does and BEiT's own code did, where transformers would interpolate linearly."""
    bias = pretrained_trunk(transformers_family("beit")).layers[1].relative_position_bias
    larger = BeitRelativePositionBias(AutoConfig.for_model("beit", image_size=96, num_attention_heads=2))
    table = bias.relative_position_bias_table.detach()
    larger.relative_position_bias_table.data = resize_rel_pos_bias_table(table, (6, 6), (11 * 11 + 3, 2))
    torch.testing.assert_close(bias((6, 6)), larger((6, 6)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["augreg", "dinov3", "rotary, one a block", "beit", "deit", "hf beit", "dinov3_vit"])
def test_without_prefix_tokens(name: str) -> None:
    """Without them the patch tokens start as they were, and see each other only."""
    family = family_of(name)
    trunk, full = pretrained_trunk(family, use_prefix_tokens=False), pretrained_trunk(family)
    assert trunk.num_prefix_tokens == 0 and full.num_prefix_tokens > 0
    with torch.no_grad():
        tokens, expected = trunk.embed(images())[0], full.embed(images())[0][:, full.num_prefix_tokens :]
    assert_same(tokens, expected)
    assert tokens_of(trunk, images()).shape == (2, 16, 32)


# The patch size


@pytest.mark.parametrize("patch_size", [8, 14, 32])
@pytest.mark.parametrize("name", ["augreg", "eva 02", "beit", "vit", "dinov2_with_registers", "dinov3_vit"])
def test_any_patch_size_becomes_16(name: str, patch_size: int) -> None:
    """The kernel is resampled, the table of positions and all else stay as they were."""
    sizes = {"img_size" if name in TIMM else "image_size": 4 * patch_size, "patch_size": patch_size}
    family = family_of(name, **sizes)
    trunk = pretrained_trunk(family)
    key = next(key for key in family.model.state_dict() if "patch_embed" in key and key.endswith(".weight"))
    expected = resample_patch_embed(family.model.state_dict()[key], [16, 16])
    weights = trunk.state_dict()
    assert_same(next(weights[key] for key in weights if "patch_embed" in key and key.endswith(".weight")), expected)

    same = family_of(name)
    same_weights = dict(family.model.state_dict()) | {key: expected}
    same.model.load_state_dict(same_weights)
    with torch.no_grad():
        torch.testing.assert_close(tokens_of(trunk, images()), same.tokens(images()), rtol=1e-4, atol=1e-4)


def test_patch_kernel_bilinear() -> None:
    family = timm_family("augreg", img_size=56, patch_size=14)
    trunk = build_trunk(tiny_config(trunk_config=family.trunk_config))
    trunk.load_pretrained(family.model.state_dict(), patch_resample="bilinear")
    expected = F.interpolate(family.model.patch_embed.proj.weight, size=(16, 16), mode="bilinear")
    assert_same(trunk.embeddings.patch_embed.proj.weight, expected)
    with pytest.raises(ValueError, match=r"must be one of \('pi', 'bilinear'\), got 'cubic'"):
        trunk.load_pretrained(family.model.state_dict(), patch_resample="cubic")


def test_config_of_another_patch_size() -> None:
    """The grid is that of the pretrained model, 518 / 14; `trunk_config` still says what that was."""
    trunk_config = {"architecture": "vit_small_patch14_reg4_dinov2"}
    config = ViTCoMerConfig(trunk_config=trunk_config)
    assert (config.patch_size, config.image_size) == (16, [37 * 16, 37 * 16])
    assert config.trunk_config.architecture == "vit_small_patch14_reg4_dinov2"
    with torch.device("meta"):
        trunk = build_trunk(config)
    assert trunk.embeddings.pos_embed.shape == (1, 37 * 37, 384)
    config = ViTCoMerConfig(trunk_config={"model_type": "dinov2", "image_size": 518, "patch_size": 14})
    assert (config.patch_size, config.image_size, config.trunk_config.patch_size) == (16, [592, 592], 14)


# What a backbone has to bear


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_sizes(name: str) -> None:
    backbone = pretrained(family_of(name), depths=[1, 0, 1, 0])
    for height, width in ((32, 96), (75, 41), (160, 64)):
        with torch.no_grad():
            feature_maps = backbone(images(height, width)).feature_maps
        for feature_map, stride in zip(feature_maps, (4, 8, 16, 32), strict=True):
            assert feature_map.shape == (2, 32, -(-height // stride), -(-width // stride))
            assert feature_map.isfinite().all()


@pytest.mark.parametrize("name", [*REPRESENTATIVES, "eva 02", "rotary", "beit, shared bias"])
def test_save_and_load(name: str, tmp_path: Path) -> None:
    """Through the meta device, where buffers that no file holds come back empty and have to be computed again."""
    saved = pretrained(family_of(name))
    saved.save_pretrained(tmp_path)
    loaded, report = ViTCoMerBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_same(dict(loaded.named_parameters()), dict(saved.named_parameters()))
    assert_same(dict(loaded.named_buffers()), dict(saved.named_buffers()))
    with torch.no_grad():
        assert_same(loaded(images(96, 64)).feature_maps, saved(images(96, 64)).feature_maps)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_bfloat16(name: str, tmp_path: Path) -> None:
    model = pretrained(family_of(name))
    model.save_pretrained(tmp_path)
    half = ViTCoMerBackbone.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        pairs = zip(half(images(96, 64)).feature_maps, model(images(96, 64)).feature_maps, strict=True)
    for actual, expected in pairs:
        assert actual.dtype == torch.bfloat16
        assert (actual.float() - expected).square().mean().sqrt() < 0.05 * expected.std()


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(name: str, use_reentrant: bool) -> None:
    family = family_of(name)
    plain, checkpointed = (pretrained(family, drop_path_rate=0.3).train() for _ in range(2))
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    for model in (plain, checkpointed):
        torch.manual_seed(2)
        sum(feature_map.square().mean() for feature_map in model(images(96, 64)).feature_maps).backward()
    for (parameter, expected), actual in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, msg=lambda message, p=parameter: f"{p}: {message}")


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_weight_of_the_trunk_is_trained(name: str) -> None:
    """A parameter that gets no gradient stops distributed training."""
    model = pretrained(family_of(name), drop_path_rate=0.1).train()
    sum(feature_map.square().mean() for feature_map in model(images(96, 64)).feature_maps).backward()
    assert not [key for key, parameter in model.trunk.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_compile(name: str) -> None:
    torch._dynamo.reset()
    model = pretrained(family_of(name), use_cti_to_cnn=False, use_cnn_feature_interaction=False)
    with torch.no_grad():
        expected = model(images(96, 64)).feature_maps
        actual = torch.compile(model, backend="aot_eager", fullgraph=True)(images(96, 64)).feature_maps
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_drop_path_is_a_ramp(name: str) -> None:
    trunk = pretrained_trunk(family_of(name), drop_path_rate=0.3)
    rates = [
        [module.drop_prob for module in layer.modules() if type(module).__name__.endswith("DropPath")]
        for layer in trunk.layers
    ]
    assert not any(rates[0])
    assert rates[1] and rates[1] == pytest.approx([0.3] * len(rates[1]))


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_eager_attention_and_hidden_states(name: str) -> None:
    model = pretrained(family_of(name), ViTCoMerModel)
    num_tokens = model.trunk.num_prefix_tokens + 6 * 4
    with torch.no_grad():
        plain = model(images(96, 64))
        model.config._attn_implementation = "eager"  # as a head does, for all configs that it holds
        output = model(images(96, 64), output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(output.last_hidden_state, plain.last_hidden_state, rtol=1e-4, atol=1e-4)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, num_tokens, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, num_tokens, num_tokens)] * 2
    assert_same(output.hidden_states[-1], output.last_hidden_state)


# Weights


def test_weights_of_a_classifier_lose_their_head() -> None:
    family = transformers_family("vit")
    classifier = {f"vit.{key}": value for key, value in family.model.state_dict().items()}
    trunk = build_trunk(tiny_config(trunk_config=family.trunk_config))
    trunk.load_pretrained(classifier | {"classifier.weight": torch.ones(2, 32)})
    assert_same(trunk.model.embeddings.cls_token, family.model.embeddings.cls_token)
    with pytest.raises(ValueError, match="hold nothing of this trunk, but model.classifier.weight: a head alone?"):
        trunk.load_pretrained({"classifier.weight": torch.ones(2, 32)})


def test_raw_beit_tables() -> None:
    """BEiT's own checkpoints: tables of 14 x 14 with the class token's rows, for windows of 14, of 20 and the grid."""
    family = timm_family("beit", depth=3, img_size=224)
    weights = dict(family.model.state_dict())
    raw = weights | {"blocks.0.attn.relative_position_index": torch.zeros(197, 197), "mask_token": torch.zeros(1)}
    assert raw["blocks.0.attn.relative_position_bias_table"].shape == (732, 2)
    fields = {"use_prefix_tokens": False, "window_sizes": [14, 20, 0]}
    trunk = build_trunk(tiny_config(trunk_config=family.trunk_config, depths=[3], **fields))
    trunk.load_pretrained(raw)
    tables = [layer.relative_position_bias.table for layer in trunk.layers]
    assert [len(table) for table in tables] == [27**2, 39**2, 27**2]
    assert_same(tables[0].data, raw["blocks.0.attn.relative_position_bias_table"][:729])

    shared = {key: value for key, value in raw.items() if not key.endswith("bias_table")}
    shared["rel_pos_bias.relative_position_bias_table"] = raw["blocks.1.attn.relative_position_bias_table"]
    trunk.load_pretrained(shared)
    expected = raw["blocks.1.attn.relative_position_bias_table"][:729]
    assert_same(trunk.layers[2].relative_position_bias.table.data, expected)
    with pytest.raises(ValueError, match="has 700 rows"):
        trunk.load_pretrained(raw | {"blocks.1.attn.relative_position_bias_table": torch.zeros(700, 2)})


# What is refused


REFUSED = {
    "swin": ("swin_tiny_patch4_window7_224", "is a SwinTransformer"),
    "any size": ("naflexvit_base_patch16_gap", "is a NaFlexVit"),
    "sam": ("samvit_base_patch16", "is a VisionTransformerSAM"),
    "relative positions of another kind": ("vit_relpos_base_patch16_224", "is a VisionTransformerRelPos"),
    "hybrid": ("vit_tiny_r_s16_p8_224", "has a HybridEmbed stem"),
    "CNN": ("resnet18", "is a ResNet"),
}


@pytest.mark.parametrize("architecture, wrong", REFUSED.values(), ids=REFUSED)
def test_refused_architectures(architecture: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{architecture!r} {wrong}") as error:
        ViTCoMerConfig(trunk_config={"architecture": architecture})
    for family in ("VisionTransformer", "Eva", "Beit", "dinov3_vit"):
        assert family in str(error.value)


BAD_TRUNKS = {
    "model type": ({"trunk_config": {"model_type": "swin"}}, "model_type 'swin'; supported"),
    "misspelled argument": (
        {"trunk_config": {"architecture": "vit_tiny_patch16_224", "model_args": {"embed_dims": 32}}},
        "unexpected keyword argument 'embed_dims'",
    ),
    "padding": (
        {"trunk_config": {"architecture": "vit_tiny_patch16_224", "model_args": {"dynamic_img_pad": True}}},
        "dynamic_img_pad True in trunk_config.model_args: leave it out",
    ),
    "windows": (
        {"trunk_config": transformers_family("vit").trunk_config, "window_sizes": [2, 2], "use_prefix_tokens": False},
        "needs timm's VisionTransformer or Beit as the trunk, got vit",
    ),
    "residual blocks": (
        {"trunk_config": transformers_family("vit").trunk_config, "residual_block_indexes": [1]},
        "residual_block_indexes needs a trunk of timm, got transformers' 'vit'",
    ),
    "patches": (
        {"trunk_config": transformers_family("vit").trunk_config | {"patch_size": [8, 16]}},
        "must be square",
    ),
}


@pytest.mark.parametrize("fields, message", BAD_TRUNKS.values(), ids=BAD_TRUNKS)
def test_bad_trunks(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ViTCoMerConfig(**fields)


# How many there are


@pytest.mark.slow
def test_pretrained_tags_of_timm() -> None:
    """Every pretrained tag of timm: a trunk, which is built without memory, or refused with a reason."""
    supported: dict[str, int] = {}
    refused: dict[str, int] = {}
    tags: dict[str, int] = {}
    for tag in timm.list_pretrained():
        architecture = tag.split(".")[0]
        tags[architecture] = tags.get(architecture, 0) + 1
    for architecture, count in tags.items():
        try:
            config = ViTCoMerConfig(trunk_config={"architecture": architecture})
        except ValueError as error:
            reason = re.search(r"(is an? \w+|has an? \w+|cannot be built)", str(error))[1]
            refused[reason] = refused.get(reason, 0) + count
            continue
        with torch.device("meta"):
            trunk = build_trunk(config)
        assert trunk.num_layers == config.num_hidden_layers
        family = config.trunk_facts.family
        supported[family] = supported.get(family, 0) + count
    print(f"timm {timm.__version__}: {sum(supported.values())} of {sum(tags.values())} tags are trunks: {supported}")
    print("refused:", sorted(refused.items(), key=lambda item: -item[1]))
    if timm.__version__ == "1.0.31":  # what the README says
        assert (sum(supported.values()), sum(tags.values())) == (429, 1826)
    assert supported.keys() == {"VisionTransformer", "VisionTransformerDistilled", "Eva", "Beit"}
    assert {"is a NaFlexVit", "is a SwinTransformer", "has a HybridEmbed"} <= refused.keys()
