"""scripts/visualize_features.py: what it shows of each kind of model, and its colours."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import interpolate
from transformers import UperNetConfig, UperNetForSemanticSegmentation, ViTImageProcessor

import visualize_features
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import encoder_of
from dense_prediction.models.options import BackboneOptions
from dense_prediction.models.saved_models import read_model
from dense_prediction.models.simple_feature_pyramid import STRIDES
from dense_prediction.prediction.feature_maps import plain_maps, to_colors
from dense_prediction.prediction.feature_pages import draw_page
from dense_prediction.prediction.feature_sources import from_folder
from miniature import BACKBONE
from scripts_in_process import last_error, run_script, save_model


CPU = torch.device("cpu")
SIDE = "--longest-side=96"


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((120, 80), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> Path:
    """Its head wants three of the four maps."""
    return save_model(tmp_path_factory.mktemp("detector"), "object_detection", backbone_file)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> Path:
    """A backbone of its own, with other statistics of its images."""
    folder = tmp_path_factory.mktemp("baseline")
    overrides = {"model_type": "simple_feature_pyramid"}
    build_backbone(BackboneOptions(config=str(backbone_file), overrides=overrides)).save_pretrained(folder)
    ViTImageProcessor(do_resize=False, image_mean=[0.1] * 3, image_std=[0.2] * 3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments that name a ViT in a file."""
    path = tmp_path_factory.mktemp("trunk") / "vit.safetensors"
    fields = BACKBONE["trunk_config"]
    save_file(timm.create_model(fields["architecture"], **fields["model_args"]).state_dict(), path)
    others = ["depths=[1, 1, 1, 1]", "deform_num_heads=2", "conv_stem_channels=8"]
    return "--trunk", str(path), "--fields", f"trunk_config={json.dumps(fields)}", *others


# Whole runs


def titles_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the rows that will be drawn."""
    names: list[str] = []

    def watch(image: Image.Image, rows: list[visualize_features.Row]) -> Image.Image:
        names.extend(name for name, _ in rows)
        shapes = [(64 // stride, 96 // stride, 3) for stride in STRIDES.values()]
        assert all([each.shape for each in maps] == shapes for _, maps in rows)
        return draw_page(image, rows)

    monkeypatch.setattr(visualize_features, "draw_page", watch)
    return names


def test_a_trained_model_a_backbone_and_a_trunk(
    image_file: Path,
    detector: Path,
    baseline: Path,
    trunk: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = titles_of(monkeypatch)
    expected = {
        ("--model", detector): ["plain ViT", "ViT-CoMer"],
        ("--model", baseline): ["plain ViT", "feature pyramid"],
        ("--model", detector, "--plain", baseline): ["feature pyramid", "ViT-CoMer"],
        trunk: ["plain ViT", "untrained ViT-CoMer"],
    }
    for arguments, rows in expected.items():
        names.clear()
        assert run_script(visualize_features, image_file, SIDE, "--output", tmp_path / "new", *arguments) == 0
        assert names == rows
        said = capsys.readouterr()
        assert said.out.strip() == str(tmp_path / "new" / "photo.features.png")
        assert ("ImageNet's values are taken" in said.err) == (arguments is trunk)
    page = Image.open(tmp_path / "new" / "photo.features.png")
    assert page.width >= 5 * 96
    assert page.height >= 2 * 64


def test_two_runs_over_a_folder_give_the_same_pictures(image_file: Path, detector: Path) -> None:
    written = image_file.with_name("photo.features.png")
    contents = []
    for _ in range(2):  # the pages of the first time are no images of the second
        assert run_script(visualize_features, image_file.parent, SIDE, "--model", detector) == 0
        contents.append(written.read_bytes())
    assert contents[0] == contents[1]
    assert len(list(image_file.parent.iterdir())) == 2


def test_mistakes_end_in_one_line(image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = UperNetConfig(hidden_size=16, auxiliary_channels=8)
    config.backbone_config.update({"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]})
    UperNetForSemanticSegmentation(config).save_pretrained(tmp_path / "other")
    ViTImageProcessor().save_pretrained(tmp_path / "other")
    mistakes = {
        (): "one of the arguments --model --trunk is required",
        ("--model", tmp_path): f"{tmp_path} is no model folder: it has no config.json",
        ("--model", tmp_path / "other"): "its backbone is a ResNetBackbone, not a ViT-CoMer or its baseline",
        ("--trunk", "timm/vit_tiny_patch61_224"): "--trunk timm/vit_tiny_patch61_224: timm",
        ("--trunk", "timm/vit_tiny_patch16_224", "--fields", "depths"): "expected field=value, got 'depths'",
    }
    for arguments, message in mistakes.items():
        assert run_script(visualize_features, image_file, *arguments) == 1
        assert message in last_error(capsys)


# Sources


def test_all_four_maps_of_the_trained_weights(detector: Path) -> None:
    model, processor = read_model(detector, CPU)
    source = from_folder(detector, CPU)
    expected, actual = encoder_of(model).state_dict(), source.backbone.state_dict()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert source.backbone.out_features == list(STRIDES)
    assert not source.backbone.training
    image = Image.new("RGB", (96, 64), (255, 0, 0))
    torch.testing.assert_close(source.prepare(image), processor(images=image, return_tensors="pt")["pixel_values"])


def test_a_backbone_is_given_images_as_its_folder_says(baseline: Path) -> None:
    source = from_folder(baseline, CPU)
    assert source.backbone.out_features == list(STRIDES)
    assert source.prepare(Image.new("RGB", (96, 64))).unique().item() == pytest.approx(-0.5)


def test_the_plain_row_is_the_trunk_by_itself(detector: Path) -> None:
    """Whatever the convolutional branch has learnt; at 1/16 it is the trunk's map, at 1/4 the same, enlarged."""
    backbone = from_folder(detector, CPU).backbone
    pixel_values = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    before = plain_maps(backbone, pixel_values)
    for name, parameter in backbone.named_parameters():
        if not name.startswith("trunk."):
            torch.nn.init.normal_(parameter)
    maps = plain_maps(backbone, pixel_values)
    assert [tuple(each.shape) for each in maps] == [(32, 64 // s, 96 // s) for s in STRIDES.values()]
    assert all(torch.equal(one, two) for one, two in zip(maps, before))
    with torch.no_grad():
        tokens, context = backbone.trunk.embed(pixel_values)
        tokens = backbone.trunk.run(tokens, context, 0, 4)
    expected = tokens[0, backbone.trunk.num_prefix_tokens :].T.reshape(32, 4, 6)
    torch.testing.assert_close(maps[2], expected)
    torch.testing.assert_close(maps[3], expected.reshape(32, 2, 2, 3, 2).mean((2, 4)))
    for level, factor in ((0, 4), (1, 2)):
        torch.testing.assert_close(maps[level], interpolate(expected[None], scale_factor=factor, mode="bilinear")[0])


# Colours


def three_directions(height: int, width: int, strengths: tuple[float, float, float]) -> torch.Tensor:
    """A map of 8 channels that varies down, to the right, and as a saddle, along an axis of its own each."""
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    patterns = [rows.expand(height, width), columns.expand(height, width), rows * columns]
    axes = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).Q
    return 5 + sum(s * axis[:, None, None] * pattern for s, axis, pattern in zip(strengths, axes.T, patterns))


def test_colours_are_the_axes_along_which_features_differ_most() -> None:
    """The first axis is red; each is stretched to the full range."""
    (colors,) = to_colors([three_directions(20, 30, (9, 4, 1))])
    assert colors.shape == (20, 30, 3)
    assert colors.dtype == np.uint8
    for axis, channel in ((0, 0), (1, 1)):
        profile = colors[..., channel].mean(1 - axis).astype(float)
        assert np.ptp(colors[..., channel].astype(float), axis=1 - axis).max() <= 2, "this colour follows one pattern"
        assert abs(profile[0] - profile[-1]) > 250
    saddle = np.outer(np.linspace(-1, 1, 20), np.linspace(-1, 1, 30))
    assert abs(np.corrcoef(saddle.ravel(), colors[..., 2].ravel())[0, 1]) > 0.99


def test_a_colour_means_the_same_at_all_levels() -> None:
    """Although the second map is a hundred times as strong and its own first axis another one."""
    small, large = three_directions(20, 30, (9, 4, 1)), 100 * three_directions(10, 16, (5, 6, 1))
    alone, _ = to_colors([large, large])
    one, two = to_colors([small, large])
    assert abs(one[0, :, 0].mean() - one[-1, :, 0].mean()) > 250
    assert abs(two[0, :, 0].mean() - two[-1, :, 0].mean()) > 250
    assert (one[0, 0, :2] > 127).tolist() == (two[0, 0, :2] > 127).tolist()
    assert abs(alone[0, :, 1].mean() - alone[-1, :, 1].mean()) > 250, "alone, its first axis is the other one"


def test_colours_do_not_change_with_the_sign_that_a_library_gives_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    feature_map = three_directions(20, 30, (9, 4, 1))
    (expected,) = to_colors([feature_map])
    complete = torch.linalg.eigh

    def negated(matrix: torch.Tensor) -> torch.return_types.linalg_eigh:
        values, vectors = complete(matrix)
        return torch.return_types.linalg_eigh((values, -vectors))

    monkeypatch.setattr(torch.linalg, "eigh", negated)
    assert np.array_equal(to_colors([feature_map])[0], expected)


def test_a_constant_map_is_grey() -> None:
    for colors in to_colors([torch.ones(8, 4, 4), torch.zeros(8, 2, 2)]):
        assert set(np.unique(colors)) == {127, 128} or set(np.unique(colors)) == {128}


def test_a_page_shows_every_pixel_of_a_map_as_a_sharp_rectangle() -> None:
    image = Image.new("RGB", (64, 32), "red")
    maps = [np.random.default_rng(s).integers(0, 256, (32 // s, 64 // s, 3), dtype=np.uint8) for s in STRIDES.values()]
    page = draw_page(image, [("plain ViT", maps), ("ViT-CoMer", maps[::-1])])
    pixels = np.array(page)
    (top, *_), (left, *_) = np.nonzero((pixels == (255, 0, 0)).all(-1))
    width = (page.width - 64) // 4
    for column, colors in enumerate(maps, start=1):
        shown = pixels[top : top + 32, left + column * width : left + column * width + 64]
        factor = 32 // colors.shape[0]
        assert np.array_equal(shown, colors.repeat(factor, 0).repeat(factor, 1))
    assert np.array_equal(pixels[-32:, -64:], maps[0].repeat(4, 0).repeat(4, 1))


def test_images_become_whole_cells_of_the_coarsest_map() -> None:
    sizes = {
        (640, 427): (640, 416),
        (640, 440): (640, 448),
        (3000, 4000): (480, 640),
        (10, 900): (32, 640),
        (33, 47): (448, 640),
    }
    for size, expected in sizes.items():
        assert visualize_features.fit(Image.new("RGB", size), 640).size == expected
