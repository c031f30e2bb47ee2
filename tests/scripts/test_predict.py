"""scripts/predict.py as a user runs it: images of every kind and size, overlays, JSON, and what goes wrong."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import predict
from dense_prediction.batches.types import Prediction, PredictionOptions
from dense_prediction.drawing.colors import class_color
from dense_prediction.drawing.pages import add_legend
from dense_prediction.drawing.pictures import draw
from dense_prediction.errors import UserError
from dense_prediction.evaluation.coco_output import describe
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model
from dense_prediction.models.heads import find_head
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.models.saved_models import build_processor, read_model
from dense_prediction.prediction import trained_model
from dense_prediction.prediction.found_tables import label_image
from dense_prediction.prediction.image_files import find_images, output_stems, read_image
from dense_prediction.prediction.trained_model import predict_image
from miniature_heads import FIELDS, LABELS
from scripts_in_process import HEAD_OF_TASK, last_error, run_script, save_model, transforms


EVERYTHING = ["--score-threshold", "0"]
"""Models with random weights are sure of nothing."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> dict[str, Path]:
    return {task: save_model(tmp_path_factory.mktemp(task), task, backbone_file) for task in HEAD_OF_TASK}


@pytest.fixture(scope="module")
def model(models: dict[str, Path]) -> Path:
    return models["semantic_segmentation"]


def save_image(path: Path, width: int = 61, height: int = 37, mode: str = "RGB", **options: Any) -> Path:
    """Grey on the left, white on the right."""
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole runs


LARGE = [("semantic_segmentation", (1200, 900)), ("instance_segmentation", (1200, 900))]


@pytest.mark.parametrize(("task", "size"), [*((task, (33, 47)) for task in HEAD_OF_TASK), *LARGE])
def test_every_task_on_small_and_large_images(
    task: str, size: tuple[int, int], models: dict[str, Path], tmp_path: Path
) -> None:
    path = save_image(tmp_path / "photo.jpg", *size)
    assert run_script(predict, models[task], path, *EVERYTHING) == 0
    tables = ["predicted_classes.csv"] + (["predicted_objects.csv"] if task != "semantic_segmentation" else [])
    ids = ["photo.labels.png"] if task != "object_detection" else []
    assert names_in(tmp_path) == ["photo.jpg", *ids, "photo.overlay.png", "photo.prediction.json", *tables]
    loaded, processor = read_model(models[task], torch.device("cpu"))
    options = PredictionOptions(object_threshold=0, things=frozenset({1, 2}))
    found = predict_image(loaded, processor, read_image(path), options)
    written = json.loads((tmp_path / "photo.prediction.json").read_text())
    assert written == describe(path, found, TASKS[task], LABELS, (size[1], size[0]))
    assert written["annotations"]
    picture = draw(read_image(path), found, LABELS, TASKS[task].draw)
    overlay = Image.open(tmp_path / "photo.overlay.png")
    assert overlay.width == picture.width >= size[0]
    assert overlay.height > picture.height, "a legend stands below"
    assert overlay.crop((0, 0, *picture.size)).tobytes() == picture.tobytes()


def test_a_folder_again_and_elsewhere(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, output = tmp_path / "images", tmp_path / "new" / "found"
    images.mkdir()
    for name in ("frame_10.png", "frame_2.png", "same.jpg", "same.png"):
        save_image(images / name)
    (images / "notes.txt").touch()
    untouched = (images / "same.png").read_bytes()
    for _ in range(2):  # the overlays of the first time are no images of the second
        assert run_script(predict, model, images) == 0
    stems = ["frame_10", "frame_2", "same.jpg", "same.png"]
    written = [stem + suffix for stem in stems for suffix in (".labels.png", ".overlay.png", ".prediction.json")]
    written.append("predicted_classes.csv")
    assert names_in(images) == sorted([*written, "frame_10.png", "frame_2.png", "notes.txt", "same.jpg", "same.png"])
    assert (images / "same.png").read_bytes() == untouched
    capsys.readouterr()
    assert run_script(predict, model, images, "--output", output) == 0
    assert names_in(output) == sorted(written)
    order = ["frame_2", "frame_10", "same.jpg", "same.png"]
    printed = [*(f"{stem}.overlay.png" for stem in order), "predicted_classes.csv"]
    assert capsys.readouterr().out.split() == [str(output / name) for name in printed]


def test_images_that_cannot_be_read_are_named_and_the_others_done(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = save_image(tmp_path / "c.png", 200, 200).read_bytes()
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    save_image(tmp_path / "tiny.png", 20, 40)
    assert run_script(predict, model, tmp_path) == 1
    said = capsys.readouterr()
    assert said.out.split() == [str(tmp_path / "c.overlay.png"), str(tmp_path / "predicted_classes.csv")]
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert [line.split("as an image")[0] for line in lines[:2]] == [
        f"error: cannot read {tmp_path / name} " for name in ("a.png", "b.png")
    ]
    assert lines[2].startswith(f"error: {tmp_path / 'tiny.png'}: Images must have at least 32 x 32 pixels")
    assert lines[3].startswith(f"error: 3 of 4 images failed: {tmp_path / 'a.png'}, ")
    assert (tmp_path / "c.overlay.png").exists()
    assert not any((tmp_path / f"{name}.overlay.png").exists() for name in ("a", "b", "tiny"))


def test_the_only_image_fails_with_its_own_reason(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    assert run_script(predict, model, tmp_path / "a.png") == 1
    assert last_error(capsys).startswith(f"cannot read {tmp_path / 'a.png'} as an image")


def test_an_image_with_too_few_positions_for_the_queries_is_named(
    backbone_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    head = HeadOptions(name="rt_detr", config=FIELDS["rt_detr"] | {"num_queries": 300})
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(head.name).out_features)
    build_model(head, backbone, LABELS, TASKS["object_detection"]).save_pretrained(tmp_path / "model")
    build_processor(head, transforms()).save_pretrained(tmp_path / "model")
    image = save_image(tmp_path / "a.png", 120, 70)
    assert run_script(predict, tmp_path / "model", image) == 1
    assert last_error(capsys).startswith(f"{image}: an image of 96 x 128 pixels, padding included, has 252 positions")


MISTAKES = {
    "image": (["absent.png"], "there is no image or folder absent.png"),
    "folder": (["."], "no image in ."),
    "score": ([".", "--score-threshold", "2"], "argument --score-threshold: must lie in 0 to 1, got 2"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    message: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script(predict, model, *arguments) == 1
    assert message in last_error(capsys)


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = save_image(tmp_path / "a.png")
    assert run_script(predict, tmp_path, image) == 1
    assert "is no model folder: it has no config.json" in last_error(capsys)


def test_an_image_too_large_for_the_memory_ends_with_advice(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trained_model, "predict_image", run_out)
    assert run_script(predict, model, save_image(tmp_path / "a.png")) == 1
    assert "61 x 37 pixels are too many for the memory" in last_error(capsys)
    monkeypatch.setattr(trained_model, "predict_image", lambda *arguments: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trained_model.TrainedModel(*[None] * 3).predict(Image.new("RGB", (2, 2)))


def test_what_cannot_be_written_is_no_traceback(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save_image(tmp_path / "a.png")
    assert run_script(predict, model, image, "--output", image) == 1
    assert last_error(capsys) == f"cannot make the folder {image}: File exists"
    (tmp_path / "a.overlay.png").mkdir()
    assert run_script(predict, model, image) == 1
    assert last_error(capsys).startswith(f"cannot write what was found in {image}: ")


# Options


def test_the_threshold_holds_for_objects_and_for_segments(models: dict[str, Path]) -> None:
    model, _ = read_model(models["panoptic_segmentation"], torch.device("cpu"))
    options = trained_model.choose_options(model, None)
    assert (options.score_threshold, options.object_threshold, options.things) == (0.5, 0.8, frozenset({1, 2}))
    options = trained_model.choose_options(model, 0.2)
    assert (options.score_threshold, options.object_threshold, options.things) == (0.2, 0.2, frozenset({1, 2}))


def test_legends_of_all_classes_are_alike() -> None:
    picture = Image.new("RGB", (400, 100))
    one, two = ({"semantic_map": torch.full((100, 400), label)} for label in (0, 2))
    complete = [add_legend(picture, found, LABELS, "all") for found in (one, two)]
    partial = [add_legend(picture, found, LABELS, "found") for found in (one, two)]
    assert complete[0].tobytes() == complete[1].tobytes()
    assert partial[0].tobytes() != partial[1].tobytes()
    legend = complete[0].crop((0, 100, *complete[0].size))
    colors = {color for _, color in legend.getcolors(100_000)}
    assert {class_color(label) for label in range(3)} <= colors
    assert add_legend(picture, one, LABELS, "none") is picture


# Reading


def test_images_are_turned_as_their_exif_data_say(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 40), "black")
    image.paste("white", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left is the top
    image.save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    assert upright.size == (40, 60)
    assert [upright.getpixel((20, y)) for y in (10, 50)] == [(255, 255, 255), (0, 0, 0)]


KINDS = {
    "grey.png": {"mode": "L"},
    "bilevel.png": {"mode": "1"},
    "alpha.png": {"mode": "RGBA"},
    "grey_alpha.png": {"mode": "LA"},
    "palette.gif": {"mode": "P"},
    "cmyk.tif": {"mode": "CMYK"},
    "video.webp": {"mode": "RGB", "lossless": True},
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
def test_every_kind_of_image_is_read_as_rgb(name: str, kind: dict[str, Any], tmp_path: Path) -> None:
    image = read_image(save_image(tmp_path / name, **kind))
    assert (image.mode, image.size) == ("RGB", (61, 37))
    assert image.getpixel((60, 0)) == (255, 255, 255)
    if kind["mode"] not in ("1", "P"):  # which have no such grey
        assert image.getpixel((10, 4)) == pytest.approx((128, 128, 128), abs=2)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_not_cut_off(name: str, tmp_path: Path) -> None:
    pixels = np.array([[0, 128 * 256, 65535]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / name)
    assert [read_image(tmp_path / name).getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


def test_numbers_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((40, 40), dtype=np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(UserError, match="depth.tif as an image: its mode is F, 32 bits a pixel"):
        read_image(tmp_path / "depth.tif")


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_no_warning(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", mode="P", transparency=bytes([0, 128]))
    assert read_image(path).mode == "RGB"


def test_images_are_found_in_natural_order_and_once(tmp_path: Path) -> None:
    for name in ("b10.png", "B9.JPG", "a.overlay.png", "a.features.png", "._b9.png", "c.pdf", "b10.json"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = find_images([tmp_path / "b10.png", tmp_path])
    assert [path.name for path in found] == ["b10.png", "B9.JPG"]
    assert [path.name for path in find_images([tmp_path])] == ["B9.JPG", "b10.png"]


def test_images_of_folders_in_a_folder_keep_their_places(tmp_path: Path) -> None:
    names = ["a.png", "b/a.png", "b/c/a.png", ".hidden/a.png", "b10/a.png", "b9/a.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path])
    order = ["a", "b/a", "b/c/a", "b9/a", "b10/a"]
    assert [str(path.relative_to(tmp_path)) for path in found] == [f"{stem}.png" for stem in order]
    assert [str(stem) for stem in output_stems(found, Path("out")).values()] == [f"out/{stem}" for stem in order]
    assert list(output_stems(found, None).values()) == [tmp_path / stem for stem in order]
    twice = find_images([tmp_path / "b" / "c", tmp_path])
    assert twice[tmp_path / "b" / "c" / "a.png"] == Path("a.png"), "below the folder that was named first"


def test_no_image_overwrites_what_belongs_to_another() -> None:
    images = {path: Path(path.name) for path in map(Path, ("x/a.png", "x/a.jpg", "x/b.png", "y/b.png"))}
    assert [str(stem) for stem in output_stems(images, None).values()] == ["x/a.png", "x/a.jpg", "x/b", "y/b"]
    with pytest.raises(UserError, match="x/b.png and y/b.png would both be written to out/b.png"):
        output_stems(images, Path("out"))


# Of images that a COCO JSON file lists


def write_annotations(path: Path, names: Sequence[str], categories: dict[str, int], size: Sequence[int]) -> Path:
    height, width = size
    images = [
        {"id": 100 + place, "file_name": name, "height": height, "width": width} for place, name in enumerate(names)
    ]
    content = {"images": images, "categories": [{"id": number, "name": name} for name, number in categories.items()]}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("task", ["object_detection", "instance_segmentation", "panoptic_segmentation"])
def test_the_results_of_images_that_a_file_lists_are_read_by_coco(
    task: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images in folders of which the file's names have the last one, an image that it does not list, other ids."""
    categories = {name: 10 * place + 3 for place, name in enumerate(reversed(LABELS))}
    images, output = tmp_path / "images", tmp_path / "found"
    for name in ("val/x/a.png", "val/y/a.png", "val/b.png", "val/stranger.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(images / name)
    names = ["x/a.png", "y\\a.png", "elsewhere/b.png", "", "."]
    file = write_annotations(tmp_path / "val.json", names, categories, (37, 61))
    as_text = task == "instance_segmentation"
    if as_text:  # as some tools write ids: they are written back as they are
        file.write_text(re.sub(r'"id": (\d+)', r'"id": "\1"', file.read_text()))
        categories = {name: str(number) for name, number in categories.items()}
    assert run_script(predict, models[task], images, "--output", output, "--annotations", file, *EVERYTHING) == 0
    results = json.loads((output / predict.RESULTS).read_text())
    truth = COCO(file)
    truth.dataset["annotations"] = []
    truth.createIndex()
    loaded = truth.loadRes(str(output / predict.RESULTS))
    assert len(loaded.anns) == len(results) > 0
    for place, stem in enumerate(("x/a", "y/a", "b")):
        single = json.loads((output / f"val/{stem}.prediction.json").read_text())
        number = str(100 + place) if as_text else 100 + place
        assert single["image"]["id"] == number
        assert {each["image_id"] for each in single["annotations"]} == {number}
        assert all(categories[each["category"]] == each["category_id"] for each in single["annotations"])
        assert {each["name"]: each["id"] for each in single["categories"]} == categories
        of_image = [each for each in results if each["image_id"] == number]
        assert [each["category_id"] for each in of_image] == [each["category_id"] for each in single["annotations"]]
    assert not (output / "val" / "stranger.prediction.json").exists()


def test_images_are_turned_as_the_file_says(models: dict[str, Path], tmp_path: Path) -> None:
    """A camera's picture was annotated as it is stored, or as a person sees it; results belong to the same."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(tmp_path / "a.jpg", 61, 37, exif=exif)
    for size in ((37, 61), (61, 37)):
        file = write_annotations(
            tmp_path / "a.json", ["a.jpg"], {name: 1 + at for at, name in enumerate(LABELS)}, size
        )
        options = ("--output", tmp_path / "found", "--annotations", file, *EVERYTHING)
        assert run_script(predict, models["instance_segmentation"], tmp_path / "a.jpg", *options) == 0
        results = json.loads((tmp_path / "found" / predict.RESULTS).read_text())
        assert {tuple(each["segmentation"]["size"]) for each in results} == {size}


def test_images_that_a_file_does_not_tell_apart_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name: place for place, name in enumerate(LABELS)}

    def refused(names: Sequence[str], categories: dict[str, int] = known, size: Sequence[int] = (37, 61)) -> str:
        file = write_annotations(tmp_path / "a.json", names, categories, size)
        assert run_script(predict, model, images, "--output", tmp_path / "found", "--annotations", file) == 1
        return last_error(capsys)

    images = tmp_path / "images"
    (images / "x").mkdir(parents=True)
    save_image(images / "x" / "a.png")
    assert refused(["b.png"]).endswith(f"a.json lists none of the 1 pictures, such as {images / 'x' / 'a.png'}")
    assert "has 2 images called a.png, and" in refused(["y/a.png", "z/a.png"])
    assert "classes sky are no categories of" in refused(["a.png"], {"dog": 1, "car": 2})
    assert "was annotated as (40, 61)" in refused(["a.png"], size=(40, 61))
    save_image(images / "a.png")
    assert "would both be a.png of" in refused(["a.png"])
    assert run_script(predict, model, images, "--annotations", tmp_path / "a.json") == 1
    assert "--annotations needs --output FOLDER" in last_error(capsys)


# Tables and images of ids


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", HEAD_OF_TASK)
def test_tables_and_ids_say_what_the_json_says(task: str, models: dict[str, Path], tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "found"
    images.mkdir()
    for name in ("a, b.png", "c.png"):
        save_image(images / name, 61, 37)
    assert run_script(predict, models[task], images, "--output", output, *EVERYTHING) == 0
    classes, objects = rows_of(output / "predicted_classes.csv"), []
    for name in ("a, b", "c"):
        found = json.loads((output / f"{name}.prediction.json").read_text())["annotations"]
        picture = str(images / f"{name}.png")
        own = {row["class"]: row for row in classes if row["picture"] == picture}
        assert list(own) == LABELS, "also those of which nothing was found"
        for label, row in own.items():
            areas = [
                each.get("area") or each["bbox"][2] * each["bbox"][3] for each in found if each["category"] == label
            ]
            assert row["count"] == ("" if task == "semantic_segmentation" else str(len(areas)))
            assert float(row["area"]) == pytest.approx(sum(areas), abs=0.5)
            assert float(row["share"]) == pytest.approx(float(row["area"]) / (61 * 37), abs=1e-6)
        objects += [(picture, str(place), each) for place, each in enumerate(found, start=1)]
        if task != "object_detection":
            ids = np.array(Image.open(output / f"{name}.labels.png"))
            assert ids.shape == (37, 61) and ids.dtype == np.uint8
            for place, each in reversed(list(enumerate(found, start=1))):
                value = each["category_id"] if task == "semantic_segmentation" else place
                inside = decode(each).numpy()
                assert set(np.unique(ids[inside])) <= {value, *range(place)}, "its own id, or a better object's"
                assert not (ids[~inside] == value).any()
    if task == "semantic_segmentation":
        assert not (output / "predicted_objects.csv").exists()
        return
    rows = rows_of(output / "predicted_objects.csv")
    assert [(row["picture"], row["id"], row["class"]) for row in rows] == [
        (picture, place, each["category"]) for picture, place, each in objects
    ]
    for row, (_, _, each) in zip(rows, objects, strict=True):
        assert float(row["score"]) == each["score"]
        box = [float(row[side]) for side in ("x", "y", "width", "height")]
        assert box == each.get("bbox", box) and all(0 <= side <= 61 for side in box)


def test_a_person_says_what_is_written(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_image(tmp_path / "a.png")
    model, output = models["instance_segmentation"], tmp_path / "found"
    tables = ["predicted_classes.csv", "predicted_objects.csv"]
    written = {"csv": tables, "labels": ["a.labels.png"], "json,overlay": ["a.overlay.png", "a.prediction.json"]}
    for kinds, names in written.items():
        assert run_script(predict, model, path, "--output", output, "--write", kinds) == 0
        assert names_in(output) == names
        shutil.rmtree(output)
    capsys.readouterr()
    assert run_script(predict, model, path, "--write", "csv,pdf") == 1
    assert "there is no 'pdf', choose from overlay, json, labels, csv" in last_error(capsys)


def test_many_objects_have_ids_of_sixteen_bits(tmp_path: Path) -> None:
    masks = torch.zeros(300, 20, 30, dtype=torch.bool)
    masks[torch.arange(300), torch.arange(300) // 30, torch.arange(300) % 30] = True
    masks[7] |= masks[3]
    label_image({"masks": masks}, [1]).save(tmp_path / "ids.png")
    ids = np.array(Image.open(tmp_path / "ids.png"))
    assert ids.dtype.itemsize >= 2 and ids[:10].flatten().tolist() == list(range(1, 301))
    assert ids[0, 3] == 4, "of two objects in one place, the better one"
    assert not ids[10:].any()
    assert label_image({"boxes": torch.zeros(1, 4)}, [1]) is None


def test_ids_are_those_of_the_data(tmp_path: Path) -> None:
    semantic_map = torch.tensor([[0, 1], [2, 2]])
    for category_ids, dtype in (([18, 1, 7], "L"), ([18, 300, 7], "I;16")):
        image = label_image({"semantic_map": semantic_map}, category_ids)
        assert image.mode == dtype
        assert np.array(image).tolist() == [[category_ids[label] for label in row] for row in semantic_map.tolist()]
    too_large = label_image({"semantic_map": semantic_map}, [1, 2, 70_000])
    assert np.array(too_large).tolist() == semantic_map.tolist()


# JSON


def decode(annotation: dict[str, Any]) -> torch.Tensor:
    assert annotation["area"] == coco_mask.area(annotation["segmentation"])
    return torch.from_numpy(coco_mask.decode(annotation["segmentation"])).bool()


def described(prediction: Prediction, size: Sequence[int]) -> list[dict[str, Any]]:
    """Through JSON and back."""
    task = TASKS["semantic_segmentation" if "semantic_map" in prediction else "panoptic_segmentation"]
    content = json.loads(json.dumps(describe(Path("x/photo.jpg"), prediction, task, LABELS, tuple(size))))
    assert content["image"] == {"file_name": "photo.jpg", "height": size[0], "width": size[1]}
    assert [category["name"] for category in content["categories"]] == LABELS
    assert all(LABELS[each["category_id"]] == each["category"] for each in content["annotations"])
    return content["annotations"]


def test_classes_as_json() -> None:
    semantic_map = torch.randint(0, 2, (33, 47)) * 2
    annotations = described({"semantic_map": semantic_map}, (33, 47))
    assert [each["category"] for each in annotations] == ["sky", "car"]
    for label, annotation in zip((0, 2), annotations):
        assert torch.equal(decode(annotation), semantic_map == label)


def test_segments_as_json() -> None:
    segment_map = torch.randint(-1, 3, (33, 47))
    prediction = {
        "segment_map": segment_map,
        "labels": torch.tensor([1, 0, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.75]),
    }
    annotations = described(prediction, (33, 47))
    assert [(each["category"], each["score"]) for each in annotations] == [("dog", 0.9), ("sky", 0.8), ("dog", 0.75)]
    for index, annotation in enumerate(annotations):
        assert torch.equal(decode(annotation), segment_map == index)


@pytest.mark.parametrize("with_masks", [False, True])
def test_objects_as_json(with_masks: bool) -> None:
    prediction = {
        "boxes": torch.tensor([[1.5, 2, 11.5, 22], [0, 0, 47, 33]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.9, 0.123456]),
    }
    masks = torch.rand(2, 33, 47) > 0.5
    annotations = described(prediction | ({"masks": masks} if with_masks else {}), (33, 47))
    assert [each["bbox"] for each in annotations] == [[1.5, 2, 10, 20], [0, 0, 47, 33]]
    assert [(each["category"], each["score"]) for each in annotations] == [("car", 0.9), ("dog", 0.1235)]
    assert [("segmentation" in each, "area" in each) for each in annotations] == [(with_masks, with_masks)] * 2
    for mask, annotation in zip(masks if with_masks else [], annotations):
        assert torch.equal(decode(annotation), mask)


def test_categories_have_the_ids_that_the_data_give_them() -> None:
    prediction = {"boxes": torch.tensor([[0, 0, 9, 9.0]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.5])}
    content = describe(Path("a.png"), prediction, TASKS["object_detection"], LABELS, (33, 47), [18, 1, 7])
    assert content["categories"] == [{"id": number, "name": name} for number, name in zip((18, 1, 7), LABELS)]
    assert [(each["category_id"], each["category"]) for each in content["annotations"]] == [(7, "car")]


def test_a_model_writes_the_ids_that_its_config_keeps(models: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(models["semantic_segmentation"], model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"category_ids": [18, 1, 7]}))
    assert run_script(predict, model, save_image(tmp_path / "a.png")) == 0
    written = json.loads((tmp_path / "a.prediction.json").read_text())
    ids = dict(zip(LABELS, (18, 1, 7)))
    assert [ids[each["category"]] for each in written["annotations"]] == [
        each["category_id"] for each in written["annotations"]
    ]
    assert {each["name"]: each["id"] for each in written["categories"]} == ids
