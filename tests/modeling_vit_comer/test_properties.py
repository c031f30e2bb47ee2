"""What holds for every size, batch, dtype and config, and what a user is told about bad input."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.configuration_vit_comer import STRIDES
from tiny import tiny_config, tiny_trunk, wake_up


TRUNKS = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "positions for patches only": {"no_embed_class": True},
    "layer scale and query norm": {"init_values": 0.1, "qk_norm": True},
}
WITHOUT_PREFIX_TOKENS = ("no class token",)
DEPTHS = ([2], [1, 1], [0, 2, 0], [1, 0, 1, 0], [0, 0, 1, 1])
SIZES = st.integers(32, 300)


def examples(count: int) -> settings:
    return settings(max_examples=count, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def configs(draw: st.DrawFn) -> ViTCoMerConfig:
    depths = draw(st.sampled_from(DEPTHS))
    trunk = draw(st.sampled_from(sorted(TRUNKS)))
    use_prefix_tokens = draw(st.booleans())
    windows_allowed = not use_prefix_tokens or trunk in WITHOUT_PREFIX_TOKENS
    window_sizes = st.lists(st.sampled_from([0, 2, 3, 7]), min_size=2, max_size=2)
    switch = st.booleans() | st.lists(st.booleans(), min_size=len(depths), max_size=len(depths))
    fusions = ["last", "none"] + ["per_stage"] * (len(depths) == 4)
    stages = st.lists(st.sampled_from(list(STRIDES)), min_size=1, unique=True)
    return tiny_config(
        trunk_config=tiny_trunk(**TRUNKS[trunk]),
        depths=depths,
        use_prefix_tokens=use_prefix_tokens,
        window_sizes=draw(st.none() | window_sizes) if windows_allowed else None,
        residual_block_indexes=draw(st.sampled_from([[], [1]])),
        position_embedding_antialias=draw(st.booleans()),
        num_channels=draw(st.sampled_from([1, 3, 4])),
        mrfp_ratio=draw(st.sampled_from([0.5, 1, 2.0])),
        mrfp_kernel_sizes=draw(st.sampled_from([[3], [3, 5], [1, 3, 5, 7]])),
        use_cti_to_vit=draw(switch),
        use_cti_to_cnn=draw(switch),
        use_cnn_feature_interaction=draw(switch),
        num_extra_cti=draw(st.integers(0, 2)),
        deform_num_heads=draw(st.sampled_from([1, 2, 4])),
        deform_num_points=draw(st.integers(1, 4)),
        deform_ratio=draw(st.sampled_from([0.5, 1])),
        use_conv_ffn=draw(st.booleans()),
        vit_feature_fusion=draw(st.sampled_from(fusions)),
        layer_scale_init_value=0.1,
        out_features=sorted(draw(stages), key=list(STRIDES).index),
    )


def build(config: ViTCoMerConfig) -> ViTCoMerBackbone:
    torch.manual_seed(0)
    backbone = ViTCoMerBackbone(config)
    wake_up(backbone)
    return backbone.eval()


def assert_maps(feature_maps: tuple[torch.Tensor, ...], config: ViTCoMerConfig, pixel_values: torch.Tensor) -> None:
    batch, _, height, width = pixel_values.shape
    assert len(feature_maps) == len(config.out_features)
    for feature_map, name in zip(feature_maps, config.out_features, strict=True):
        stride = STRIDES[name]
        assert feature_map.shape == (batch, config.hidden_size, -(-height // stride), -(-width // stride))
        assert feature_map.dtype == pixel_values.dtype
        assert feature_map.isfinite().all()


@examples(120)
@given(
    config=configs(),
    batch=st.integers(1, 2),
    height=SIZES,
    width=SIZES,
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_maps_of_any_config(config: ViTCoMerConfig, batch: int, height: int, width: int, dtype: torch.dtype) -> None:
    pixel_values = torch.randn(batch, config.num_channels, height, width, dtype=dtype)
    with torch.no_grad():
        feature_maps = build(config).to(dtype)(pixel_values).feature_maps
    assert_maps(feature_maps, config, pixel_values)


@examples(40)
@given(config=configs(), height=SIZES, width=SIZES)
def test_training_with_any_config(config: ViTCoMerConfig, height: int, width: int) -> None:
    backbone = build(config).train()
    pixel_values = torch.randn(2, config.num_channels, height, width)
    feature_maps = backbone(pixel_values).feature_maps
    assert_maps(feature_maps, config, pixel_values)
    sum(feature_map.square().mean() for feature_map in feature_maps).backward()
    gradients = [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@examples(15)
@given(height=SIZES, width=SIZES)
def test_any_size_is_padded_with_zeros(height: int, width: int) -> None:
    backbone = build(tiny_config(layer_scale_init_value=0.1))
    pixel_values = torch.randn(1, 3, height, width)
    padded = torch.zeros(1, 3, 320, 320)[..., : -(-height // 32) * 32, : -(-width // 32) * 32]
    padded[..., :height, :width] = pixel_values
    with torch.no_grad():
        feature_maps, expected = backbone(pixel_values).feature_maps, backbone(padded).feature_maps
    for feature_map, full in zip(feature_maps, expected, strict=True):
        torch.testing.assert_close(
            feature_map, full[..., : feature_map.shape[-2], : feature_map.shape[-1]], rtol=0, atol=0
        )


IMAGES = {
    "channels": ((1, 4, 64, 64), "must be (batch, 3, height, width), got (1, 4, 64, 64)", "set num_channels"),
    "no batch": ((3, 64, 64), "must be (batch, 3, height, width), got (3, 64, 64)", "(batch,"),
    "too low": ((1, 3, 31, 64), "at least 32 x 32 pixels", "got 31 x 64. Resize or pad"),
    "too narrow": ((1, 3, 64, 16), "at least 32 x 32 pixels", "got 64 x 16. Resize or pad"),
}


@pytest.mark.parametrize("shape, wrong, remedy", IMAGES.values(), ids=IMAGES)
def test_bad_images(shape: tuple[int, ...], wrong: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)) as error:
        build(tiny_config())(torch.zeros(shape))
    assert remedy in str(error.value)


def timm_trunk(architecture: str, **model_args: Any) -> dict[str, Any]:
    return {"model_type": "timm_wrapper", "architecture": architecture, "model_args": model_args}


CONFIGS = {
    "misspelled": ({"deform_heads": 4}, "no field 'deform_heads'", "did you mean deform_num_heads"),
    "unknown": ({"quux": 4}, "no field 'quux'", "see the docstring"),
    "depths": (
        {"depths": [1, 0, 2, 0]},
        "got [1, 0, 2, 0]",
        "depths must be non-negative and sum to the trunk's 2 blocks",
    ),
    "negative depth": ({"depths": [3, -1]}, "got [3, -1]", "depths must be non-negative"),
    "heads": ({"deform_num_heads": 3}, "deform_num_heads 3", "must divide the 32 value channels"),
    "no heads": ({"deform_num_heads": 0}, "deform_num_heads 0", "must divide the 32 value channels"),
    "patch drop": (
        {"trunk_config": tiny_trunk(patch_drop_rate=0.1)},
        "patch_drop_rate 0.1",
        "leave it out",
    ),
    "even kernel": ({"mrfp_kernel_sizes": [3, 4]}, "[3, 4]", "must be odd"),
    "kernels and ratio": (
        {"mrfp_kernel_sizes": [1, 3, 5]},
        "gives 16 channels",
        "multiple of the 3 mrfp_kernel_sizes",
    ),
    "windows and class token": ({"window_sizes": [2, 0]}, "window_sizes", "use_prefix_tokens=False"),
    "too few windows": ({"window_sizes": [2], "use_prefix_tokens": False}, "[2]", "each of the trunk's 2 blocks"),
    "residual blocks": ({"residual_block_indexes": [2]}, "residual_block_indexes", "must be in 0..1"),
    "fusion": ({"vit_feature_fusion": "first"}, "'first'", "of ('last', 'per_stage', 'none')"),
    "per stage": ({"vit_feature_fusion": "per_stage", "depths": [1, 1]}, "depths [1, 1]", "needs four stages"),
    "switches": ({"use_cti_to_vit": [True, False]}, "use_cti_to_vit", "a bool or one for each of 4 stages"),
    "CNN": ({"trunk_config": timm_trunk("resnet18")}, "'resnet18' is a ResNet", "for example 'vit_base_patch16_224'"),
    "not timm": ({"trunk_config": {"model_type": "resnet"}}, "model_type 'resnet'", "supported: 'timm_wrapper'"),
}


@pytest.mark.parametrize("fields, wrong, remedy", CONFIGS.values(), ids=CONFIGS)
def test_bad_configs(fields: dict[str, Any], wrong: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)) as error:
        tiny_config(**fields)
    assert remedy in str(error.value)


def test_saved_config_may_hold_more(tmp_path: Path) -> None:
    """Code that sets attributes of its own on a config can save it and read it back, as with any other config."""
    config = tiny_config()
    config.somebody_elses = 1
    config.save_pretrained(tmp_path)
    assert ViTCoMerConfig.from_pretrained(tmp_path).somebody_elses == 1


# What does not work, and says so


def weights_of(model: ViTCoMerBackbone) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def loss_of(model: ViTCoMerBackbone, weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    feature_maps = torch.func.functional_call(model, weights, (images,)).feature_maps
    return sum(feature_map.square().mean() for feature_map in feature_maps)


TRANSFORMS = {
    "grad": lambda model, loss, images: torch.func.grad(loss)(weights_of(model), images),
    "vjp": lambda model, loss, images: torch.func.vjp(lambda x: model(x).feature_maps[0], images),
    "jvp": lambda model, loss, images: torch.func.jvp(lambda x: model(x).feature_maps[0], (images,), (images,)),
    "jacrev": lambda model, loss, images: torch.func.jacrev(lambda x: model(x).feature_maps[3].mean())(images),
    "jacfwd": lambda model, loss, images: torch.func.jacfwd(lambda x: model(x * images).feature_maps[3])(images[0]),
    "hessian": lambda model, loss, images: torch.func.hessian(lambda x: model(x).feature_maps[3].mean())(images),
    "vmap": lambda model, loss, images: torch.func.vmap(lambda x: model(x[None]).feature_maps[0])(images),
    "grads of samples": lambda model, loss, images: torch.func.vmap(
        torch.func.grad(lambda weights, image: loss(weights, image[None])), in_dims=(None, 0)
    )(weights_of(model), images),
}


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_function_transforms_are_refused(transform: Callable[..., Any]) -> None:
    model = ViTCoMerBackbone(tiny_config()).eval()
    message = r"torch.func's .* cannot go through the deformable attention. For gradients use loss.backward\(\)"
    with pytest.raises(NotImplementedError, match=message):
        transform(model, partial(loss_of, model), torch.randn(2, 3, 64, 64))


@pytest.mark.usefixtures("implementation")
def test_an_ensemble_of_weights() -> None:
    """The transform that the message says works."""
    model, images = ViTCoMerBackbone(tiny_config()).eval(), torch.randn(2, 3, 64, 64)
    members = [weights_of(model), {name: 1.1 * weight for name, weight in weights_of(model).items()}]
    stacked = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    with torch.no_grad():
        losses = torch.func.vmap(lambda weights: loss_of(model, weights, images))(stacked)
        torch.testing.assert_close(losses, torch.stack([loss_of(model, member, images) for member in members]))


@pytest.mark.parametrize("fields", [{}, {"use_cti_to_vit": False, "use_cti_to_cnn": False}])
def test_one_small_image_cannot_be_trained_on(fields: dict[str, Any]) -> None:
    model = ViTCoMerBackbone(tiny_config(**fields)).train()
    with pytest.raises(
        ValueError, match="One image of 32 x 32 pixels cannot be trained on: .* two or more images, or"
    ):
        model(torch.randn(1, 3, 32, 32))
    for shape in ((2, 3, 32, 32), (1, 3, 32, 33)):
        assert model(torch.randn(*shape)).feature_maps[3].isfinite().all()
    assert model.eval()(torch.randn(1, 3, 32, 32)).feature_maps[3].isfinite().all()
