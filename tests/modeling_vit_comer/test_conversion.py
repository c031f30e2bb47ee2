"""Official arguments and checkpoints: what is accepted, what is dropped, what is refused and how."""

from pathlib import Path

import pytest
import torch

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.conversion import config_from_official, convert_official_state_dict, split_detector
from official import build_backbone, kept_model, official_fill


TABLE = "attn.relative_position_bias_table"
PRESETS = Path(__file__).parents[2] / "configuration" / "backbones"

# Parameters of the official models, counted in the official code without the class slot of `pos_embed`, which it
# never reads.
OFFICIAL_PARAMETERS = {
    "vit-comer-t": 8_739_488,
    "vit-comer-s": 30_006_752,
    "vit-comer-b": 108_149_888,
    "vit-comer-l": 341_892_160,
    "vit-comer-s-dinov2": 30_457_184,
    "vit-comer-b-dinov2": 109_050_752,
    "vit-comer-l-dinov2": 343_093_312,
    "vit-comer-t-segmentation": 10_619_168,
    "vit-comer-s-segmentation": 31_280_096,
    "vit-comer-b-segmentation": 110_602_880,
    "vit-comer-l-segmentation": 346_211_392,
}


@pytest.fixture(scope="module")
def segmenter() -> tuple[ViTCoMerConfig, dict[str, torch.Tensor]]:
    model = kept_model("vit_seg_default")
    return config_from_official(model["flavour"], **model["kwargs"]), official_fill(model["weights"])


def test_presets_are_complete() -> None:
    assert OFFICIAL_PARAMETERS.keys() <= {path.stem for path in PRESETS.glob("*.json")}


@pytest.mark.parametrize("preset", OFFICIAL_PARAMETERS)
def test_preset_parameters(preset: str) -> None:
    config = ViTCoMerConfig.from_pretrained(PRESETS / f"{preset}.json")
    with torch.device("meta"):
        backbone = ViTCoMerBackbone(config)
    assert backbone.num_parameters() == OFFICIAL_PARAMETERS[preset]


def test_flavours_differ() -> None:
    kwargs = {"embed_dim": 192, "num_heads": 3, "interaction_indexes": [[0, 2], [3, 5], [6, 8], [9, 11]]}
    detection = config_from_official("detection", **kwargs)
    segmentation = config_from_official("segmentation", **kwargs)
    assert (detection.mrfp_ratio, detection.vit_feature_fusion) == (0.5, "last")
    assert (segmentation.mrfp_ratio, segmentation.vit_feature_fusion) == (6.0, "per_stage")
    assert not detection.use_cnn_feature_interaction and segmentation.use_cnn_feature_interaction


def test_window_arguments() -> None:
    kwargs = {"depth": 4, "interaction_indexes": [[0, 3]], "window_attn": [True, False, True, False]}
    assert config_from_official("detection", **kwargs).window_sizes == [14, 0, 14, 0]
    kwargs["window_size"] = [7, None, 14, None]
    assert config_from_official("detection", **kwargs).window_sizes == [7, 0, 14, 0]


CO_DETR = {"interaction_indexes": [[0, 1], [2, 3]], "depth": 4, "embed_dim": 64, "num_heads": 4, "deform_num_heads": 4}


def test_co_detr_arguments() -> None:
    """The published large model's windows, and the two versions of the class."""
    windows = {"window_attn": [True, True, False, False], "window_size": [14, 14, 56, 56]}
    config = config_from_official("co_detr", **CO_DETR, **windows)
    assert config.window_sizes == [14, 14, 0, 0]
    assert config.image_size == [56 * 16, 56 * 16]  # the grid of the tables of the global blocks
    assert (config.vit_feature_fusion, config.mrfp_ratio, config.use_prefix_tokens) == ("last", 0.5, False)
    four_stages = CO_DETR | {"interaction_indexes": [[0, 0], [1, 1], [2, 2], [3, 3]]}
    assert config_from_official("co_detr", **four_stages, version="old").vit_feature_fusion == "per_stage"
    off = {"use_injector": False, "use_extractor": [True, False], "use_extra_extractor": False}
    config = config_from_official("co_detr", **CO_DETR, **off)
    assert (config.use_cti_to_vit, config.use_cti_to_cnn, config.num_extra_cti) == (False, [True, False], 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_CTI_toV": False}, "has no argument 'use_CTI_toV'"),
        ({"use_extractr": False}, "did you mean use_extractor"),
        ({"version": "newer"}, "must be 'new' or 'old', got 'newer'"),
        ({"window_size": [14, 14, 56, 56]}, r"the same for all blocks without window_attn.*got \[14, 56\]"),
        ({"use_abs_pos_emb": True, "pretrain_size": 512}, r"got \[14, 32\]"),
        ({"patch_size": 14}, "16 x 16"),
    ],
)
def test_bad_co_detr_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_official("co_detr", **CO_DETR | kwargs)


def test_raw_beit_tables_in_a_checkpoint() -> None:
    """BEiT's own tables, of 14 x 14 and with the class token's rows, for windows of 14 and 20 and for the grid."""
    model = kept_model("beit_codetr_new")
    windows = {"window_attn": [True, True, False, False], "window_size": [14, 20, 16, 16]}
    config = config_from_official("co_detr", **model["kwargs"] | windows)
    weights = official_fill(model["weights"] | {f"blocks.{i}.{TABLE}": [732, 4] for i in range(4)})
    weights |= {"rel_pos_bias.relative_position_bias_table": torch.zeros(732, 4), "cls_token": torch.zeros(1, 1, 64)}
    weights["blocks.0.attn.relative_position_index"] = torch.zeros(197, 197)
    converted = convert_official_state_dict(weights, config)
    tables = [converted[f"trunk.layers.{i}.relative_position_bias.table"] for i in range(4)]
    assert [len(table) for table in tables] == [27**2, 39**2, 31**2, 31**2]
    assert torch.equal(tables[0], weights[f"blocks.0.{TABLE}"][:-3])
    assert torch.equal(tables[1][39**2 // 2], weights[f"blocks.1.{TABLE}"][27**2 // 2])  # the offset 0
    with pytest.raises(ValueError, match="has 700 rows"):
        convert_official_state_dict(weights | {f"blocks.1.{TABLE}": torch.zeros(700, 4)}, config)


@pytest.mark.parametrize("has_class_slot", [False, True])
def test_absolute_positions_of_the_beit(has_class_slot: bool) -> None:
    """Without the slot of a class token, as that code has them, or with the slot of a raw checkpoint."""
    model = kept_model("beit_codetr_new")
    windows = {"window_attn": True, "window_size": 4, "use_abs_pos_emb": True}
    config = config_from_official("co_detr", **model["kwargs"] | windows)
    num_positions = 16 + has_class_slot
    weights = model["weights"] | {f"blocks.{i}.{TABLE}": [49, 4] for i in range(4)}
    weights = official_fill(weights | {"pos_embed": [1, num_positions, 64]})
    converted = convert_official_state_dict(weights, config)
    assert torch.equal(converted["trunk.embeddings.pos_embed"], weights["pos_embed"][:, -16:])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"interaction_indexs": [[0, 11]]}, "did you mean interaction_indexes"),
        ({}, "interaction_indexes is required"),
        ({"interaction_indexes": [[0, 2], [4, 11]]}, "without gaps"),
        ({"interaction_indexes": [[0, 11]], "pretrain_size": 512}, "same grid"),
        ({"interaction_indexes": [[0, 11]], "patch_size": 14}, "16 x 16"),
        ({"interaction_indexes": [[0, 11]], "deform_num_heads": 7}, "must divide"),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_official("detection", **kwargs)


def test_bad_flavour() -> None:
    with pytest.raises(ValueError, match="'detection', 'segmentation', 'co_detr'"):
        config_from_official("detector")


def test_detector_frame_is_split_off(segmenter) -> None:
    config, weights = segmenter
    detector = {f"backbone.{key}": value for key, value in weights.items()} | {"neck.conv.weight": torch.ones(1)}
    backbone, others = split_detector(detector)
    assert backbone.keys() == weights.keys() and others == ["neck.conv.weight"]
    assert convert_official_state_dict(detector, config).keys() == ViTCoMerBackbone(config).state_dict().keys()


def test_pretraining_leftovers_are_dropped(segmenter) -> None:
    config, weights = segmenter
    leftovers = {key: torch.ones(1) for key in ("cls_token", "mask_token", "norm.weight", "head.bias")}
    assert convert_official_state_dict(weights | leftovers, config).keys().isdisjoint(leftovers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("blocks.0.norm1.bias"), "1 missing: trunk.layers.0.block.norm1.bias"),
        (lambda weights: weights.update({"blocks.0.extra": torch.ones(1)}), "1 unknown: trunk.layers.0.block.extra"),
        (lambda weights: weights["up.bias"].fill_(torch.nan), "1 not finite: upsample.bias"),
        (
            lambda weights: weights.update({"up.bias": torch.ones(7)}),
            r"of another shape: upsample.bias \(checkpoint \(7,",
        ),
    ],
)
def test_bad_checkpoint(segmenter, change, message: str) -> None:
    config, weights = segmenter
    weights = {key: value.clone() for key, value in weights.items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        convert_official_state_dict(weights, config)


def test_wrong_flavour_is_refused(segmenter) -> None:
    _, weights = segmenter
    config = config_from_official("detection", **kept_model("vit_seg_default")["kwargs"])
    with pytest.raises(ValueError, match="another flavour or size"):
        convert_official_state_dict(weights, config)


@pytest.mark.parametrize(
    ("switches", "unused"),
    [
        ({"cnn_feature_interaction": False}, [".cti_toc.query_norm", ".extra_CTIs.0.feat_norm"]),
        ({"use_CTI_toV": False}, [".mrfp."]),
    ],
)
def test_modules_never_called_are_dropped(switches: dict, unused: list[str]) -> None:
    """The official code builds these modules with the switch off, and its checkpoints hold their weights."""
    model = kept_model("vit_seg_default")
    absent = {"cnn_feature_interaction": ".cfinter.", "use_CTI_toV": ".cti_tov."}
    weights = {key: shape for key, shape in model["weights"].items() if not any(absent[s] in key for s in switches)}
    assert all(any(name in key for key in weights) for name in unused)
    backbone = build_backbone("segmentation", model["kwargs"] | switches, official_fill(weights))
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 32, 32)).feature_maps[0].isfinite().all()
