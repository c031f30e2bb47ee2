"""Datasets, drawn shapes and the order of the data; every bad sample is reported by its name."""

import io
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from miniature import ROOT, draw_rows
from PIL import Image

from dense_prediction import shapes
from dense_prediction.data import IGNORE_INDEX, DatasetSplit, ShapesSplit, load_data
from dense_prediction.errors import UserError
from dense_prediction.loading import EvaluationSet, TrainingStream, evaluation_loader, training_loader
from dense_prediction.recipe_loading import load_recipe
from dense_prediction.recipes import DataRecipe, Recipe
from dense_prediction.transforms import EvaluationTransform, TrainingTransform


CAMVID = ROOT.parent / "shared" / "data" / "camvid"
RECIPE = DataRecipe(path="unused", labels=["black", "white"], ignore_index=11)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def split_of(image: bytes | None, label: Any, label_feature: Any = None) -> DatasetSplit:
    """A split of one sample called `street_007`."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": label_feature or datasets.Image(), "name": datasets.Value("string")}
    )
    cell = {"bytes": label, "path": None} if isinstance(label, bytes) else label
    picture = None if image is None else {"bytes": image, "path": None}
    columns = {"image": [picture], "label": [cell], "name": ["street_007"]}
    return DatasetSplit(datasets.Dataset.from_dict(columns, features, split=datasets.Split.TRAIN), RECIPE, 2)


IMAGE = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
IDS = np.array([[0, 1, 1, 0, 11, 11]] * 4, dtype=np.uint8)


def test_a_sample_has_the_image_and_void_at_the_ignore_index() -> None:
    image, mask = split_of(png(IMAGE), png(IDS))[0]
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.uint8
    assert mask.tolist() == [[0, 1, 1, 0, IGNORE_INDEX, IGNORE_INDEX]] * 4


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (png(IMAGE), png(IDS + 2), r"label holds ids \[2, 3, 13\], allowed are 0\.\.1 .* and 11"),
        (png(IMAGE)[:60], png(IDS), "image cannot be decoded"),
        (b"not an image", png(IDS), "image cannot be decoded"),
        (None, png(IDS), "image is empty"),
        (png(IMAGE), png(IDS)[:50], "label cannot be decoded"),
        (png(IMAGE), png(IDS[:, :3]), r"label has shape \(4, 3\), expected .* \(4, 6\)"),
        (png(IMAGE), png(IMAGE), r"label has shape \(4, 6, 3\)"),
        (png(IMAGE), png(np.full((4, 6), 11, dtype=np.uint8)), "no pixel is labelled"),
    ],
    ids=range(8),
)
def test_a_bad_sample_is_reported_by_its_name(image: bytes | None, label: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        split_of(image, label)[0]
    assert "sample 0 of train (street_007)" in str(caught.value)


def test_class_names_come_from_the_features(tmp_path: Path) -> None:
    """Labels may also be rows of class ids, with the names in the dataset's features."""
    names = datasets.List(datasets.List(datasets.ClassLabel(names=["sky", "road"])))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    columns = {"image": [{"bytes": png(IMAGE), "path": None}], "label": [[[0, 1, 1, 0, 0, 1]] * 4]}
    for split in ("train", "validation"):
        rows = datasets.Dataset.from_dict(columns, features)
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    data = load_data(DataRecipe(path=str(tmp_path)))
    assert data.labels == ["sky", "road"]
    assert data.train[0][1].tolist() == [[0, 1, 1, 0, 0, 1]] * 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "./absent"}, r"there is no folder .*/absent; set data.path=FOLDER"),
        ({"train_split": "trian"}, "data.train_split=trian: .* has no such split, it has train, validation"),
        ({"label_column": "mask"}, "has no column 'mask', it has image, label"),
        ({"labels": None}, "the dataset does not name its classes: list them in data.labels"),
        ({"labels": ["one"]}, "data.labels must name 2 to 254 classes, got 1"),
    ],
)
def test_what_cannot_be_found_is_said(dataset_folder: Path, fields: dict[str, Any], message: str) -> None:
    defaults = {"path": str(dataset_folder), "labels": ["black", "white"]}
    with pytest.raises(UserError, match=message):
        load_data(DataRecipe(**(defaults | fields)))


def test_a_folder_is_read(dataset_folder: Path) -> None:
    data = load_data(DataRecipe(path=str(dataset_folder), labels=["black", "white"], max_validation_samples=1))
    assert (len(data.train), len(data.validation)) == (1, 1)
    image, mask = data.train[0]
    assert image[0, :, :28].max() == 0
    assert image[0, :, 28:].min() == 255
    assert torch.equal(mask, torch.from_numpy(np.array(draw_rows(1)[0][1])).long())


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the CamVid copy beside the repository")
def test_camvid_has_the_labels_of_its_recipe(tmp_path: Path) -> None:
    datasets.config.HF_DATASETS_CACHE = tmp_path
    path = ROOT / "configuration/recipes/semantic_segmentation/camvid/upernet_vit-comer-s.yaml"
    data = load_data(load_recipe(path, [f"data.path={CAMVID}"]).data)
    assert (len(data.train), len(data.validation), len(data.labels)) == (367, 101, 11)
    image, mask = data.validation[0]
    assert image.shape[1:] == mask.shape == (360, 480)
    assert set(mask.unique().tolist()) <= {*range(11), IGNORE_INDEX}
    road = data.labels.index("Road")
    assert (mask[300:] == road).float().mean() > 0.5, "the street must lie at the bottom"


def test_shapes_depend_on_seed_and_index_alone() -> None:
    def pixels(seed: int, index: int) -> list[bytes]:
        return [picture.tobytes() for picture in shapes.draw_sample(seed, index, 64)]

    first = pixels(0, 3)
    np.random.default_rng().random(10)
    assert pixels(0, 3) == first
    assert pixels(0, 4) != first
    assert pixels(1, 3) != first


def test_colour_does_not_reveal_the_class() -> None:
    colors, counts = defaultdict(list), np.zeros(len(shapes.LABELS))
    for index in range(400):
        image, mask = (np.asarray(picture) for picture in shapes.draw_sample(0, index, 48))
        counts += np.bincount(mask.ravel(), minlength=len(counts))
        for label in np.unique(mask):
            colors[label].append(image[mask == label].mean(0))
    assert (counts / counts.sum() > 0.03).all(), "every class must be worth learning"
    means = np.array([np.mean(colors[label], axis=0) for label in sorted(colors)])
    assert np.ptp(means, axis=0).max() < 20, f"of 255; mean colours of the classes: {means.round()}"


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


def stream_of(recipe: Recipe, length: int = 5) -> TrainingStream:
    return TrainingStream(ShapesSplit(0, length), TrainingTransform(recipe.transforms), recipe.seed)


def test_each_epoch_is_another_permutation(recipe: Recipe) -> None:
    class Indices:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> int:
            return index

    stream = TrainingStream(Indices(), lambda index: index, seed=0)
    epochs = [[stream[position] for position in range(start, start + 20)] for start in (0, 20)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    assert [stream[position] for position in range(20)] == epochs[0], "going back must give the same order"


def test_what_stands_at_a_position_does_not_depend_on_the_way_there(recipe: Recipe) -> None:
    unbroken = list(training_loader(stream_of(recipe), range(8), batch_size=2, workers=0))
    torch.manual_seed(123)
    resumed = list(training_loader(stream_of(recipe), range(4, 8), batch_size=2, workers=2))
    assert len(unbroken) == 4
    for before, after in zip(unbroken[2:], resumed, strict=True):
        assert all(torch.equal(before[key], after[key]) for key in before)
    again = stream_of(recipe)
    assert not torch.equal(again[0]["pixel_values"], again[5]["pixel_values"]), "augmentation must vary"


def test_data_leaves_the_global_generators_alone(recipe: Recipe) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    next(iter(training_loader(stream_of(recipe), range(2), batch_size=2, workers=0)))
    data = EvaluationSet(ShapesSplit(0, 2), EvaluationTransform(recipe.transforms))
    assert len(list(evaluation_loader(data, range(2), workers=0))) == 2
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
