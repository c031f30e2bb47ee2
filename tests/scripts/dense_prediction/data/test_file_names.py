"""Names of files as other systems write them, names that lead out, and files that no person has put there."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_prediction.data.annotations.file_names import files_below, is_litter, locate, near_it
from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.prediction.image_files import find_images
from test_data_coco import (
    ANNOTATIONS,
    DETECTION,
    PANOPTIC,
    SEGMENTS,
    panoptic_recipe_of,
    write_coco,
    write_json,
    write_panoptic,
)
from test_data_folders import CAT, SEMANTIC, ade_recipe, voc_recipe, write_ade, write_picture, write_voc


GREY = np.full((20, 30, 3), 128, dtype=np.uint8)

LITTER = [
    ".DS_Store",
    "._b.jpg",
    ".hidden.png",
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX/b.jpg",
    "@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg",
    ".ipynb_checkpoints/b-checkpoint.jpg",
    "$RECYCLE.BIN/b.png",
]

OUTSIDE = [
    "../a.png",
    "sub/../../a.png",
    "/a.png",
    "//server/share/a.png",
    "C:\\pictures\\a.png",
    "C:/pictures/a.png",
    "c:a.png",
    "\\\\server\\share\\a.png",
    "..\\a.png",
    "sub\\..\\..\\a.png",
    "%2e%2e/a.png",
    "..%2Fa.png",
    "~/a.png",
    "~root/a.png",
    "..",
]


def litter(folder: Path) -> None:
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused_by_its_text(tmp_path: Path, name: str) -> None:
    """Whether there is such a file or not, and though it would lead back in."""
    (tmp_path / "data").mkdir()
    write_picture(tmp_path / "a.png", GREY)
    with pytest.raises(BadSample, match="the file name of image 7, .*, leads out of .*data: write it relative to"):
        locate(tmp_path / "data", name, "image 7")


def test_of_every_format(tmp_path: Path) -> None:
    """Each with a file that is there, outside."""
    write_picture(tmp_path / "a.png", GREY)
    (tmp_path / "a.xml").write_text("<annotation/>")
    coco = write_coco(tmp_path / "coco", ANNOTATIONS, file_name="../../a.png")
    write_panoptic(tmp_path / "panoptic", SEGMENTS)
    panoptic = panoptic_recipe_of(tmp_path / "panoptic")
    content = {"image_id": 42, "file_name": str(tmp_path / "a.png"), "segments_info": SEGMENTS}
    images, categories = [{"id": 42, "file_name": "a.png"}], [{"id": 7, "name": "dog", "isthing": 1}]
    everything = {"images": images, "categories": categories, "annotations": [content]}
    write_json(tmp_path / "panoptic" / "instances.json", everything)
    write_voc(tmp_path / "voc", CAT)
    for kind in ("Main", "Segmentation"):
        (tmp_path / "voc" / "ImageSets" / kind / "trainval.txt").write_text("../../a\n")
    voc, masks = voc_recipe(tmp_path / "voc"), voc_recipe(tmp_path / "voc", labels=["background", "cat", "dog"])
    write_voc(tmp_path / "named", f"<filename>..\\..\\a.png</filename>{CAT}")
    (tmp_path / "named" / "JPEGImages" / "2007_000001.jpg").unlink()
    recipes: list[tuple[Any, Any]] = [(coco, DETECTION), (panoptic, PANOPTIC), (voc, DETECTION), (masks, SEMANTIC)]
    for recipe, task in [*recipes, (voc_recipe(tmp_path / "named"), DETECTION)]:
        with pytest.raises(UserError, match=r"leads out of .*data.bad_samples=skip"):
            load_data(recipe, task).train[0]


@pytest.mark.parametrize(
    "name", ["~$a.png", "a..b.png", "a b.png", "..a.png", "ab:c.png", "a%.png", "ä.png", "~a.png"]
)
def test_odd_names_that_stay_inside_are_read(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / name, GREY)
    assert locate(tmp_path, name, "image 7") == tmp_path / name


def test_links_are_followed(tmp_path: Path) -> None:
    write_picture(tmp_path / "elsewhere" / "a.png", np.zeros((20, 30, 3), dtype=np.uint8))
    recipe = write_coco(tmp_path / "coco", ANNOTATIONS)
    picture = tmp_path / "coco" / "pictures" / "a.png"
    picture.unlink()
    picture.symlink_to(tmp_path / "elsewhere" / "a.png")
    assert load_data(recipe, DETECTION).train[0]["name"] == str(picture)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("sub/a b.png", "sub\\a b.png"),
        ("a b.png", "a%20b.png"),
        ("sub/a ü.png", "sub\\a%20%C3%BC.png"),
        (unicodedata.normalize("NFC", "ü.png"), unicodedata.normalize("NFD", "ü.png")),
        (unicodedata.normalize("NFD", "ü.png"), unicodedata.normalize("NFC", "ü.png")),
    ],
    ids=["backslash", "%20", "both", "NFD", "NFC"],
)
def test_other_spellings_of_a_name(tmp_path: Path, there: str, named: str) -> None:
    """In COCO's files; what is written as it is comes first."""
    recipe = write_coco(tmp_path, ANNOTATIONS, file_name=named)
    write_picture(tmp_path / "pictures" / there, np.zeros((20, 30, 3), dtype=np.uint8))
    assert load_data(recipe, DETECTION).train[0]["name"] == str(tmp_path / "pictures" / there)
    if "/" not in there:
        write_picture(tmp_path / "pictures" / named, np.zeros((20, 30, 3), dtype=np.uint8))
        assert load_data(recipe, DETECTION).train[0]["name"] == str(tmp_path / "pictures" / named)


def test_accents_of_masks_and_voc_lists(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "ü") for form in ("NFC", "NFD"))
    recipe = write_ade(tmp_path / "ade", stems=(composed,))
    for part in ("training", "validation"):
        folder = tmp_path / "ade" / "annotations" / part
        (folder / f"{composed}.png").rename(folder / f"{apart}.png")
    assert load_data(recipe, SEMANTIC).train[0] is not None
    write_voc(tmp_path / "voc", CAT)
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        old = tmp_path / "voc" / folder / f"2007_000001.{suffix}"
        old.rename(old.with_name(f"{composed}.{suffix}"))
    (tmp_path / "voc" / "ImageSets" / "Main" / "trainval.txt").write_text(f"{apart}\n", encoding="utf-8")
    assert len(load_data(voc_recipe(tmp_path / "voc"), DETECTION).train[0]["labels"]) == 1


@pytest.mark.parametrize("there", ["A.PNG", "a.jpg", "2024/a.png", "../a.png", "a.png.png"])
def test_a_file_that_is_missing_is_told_from_one_that_is_near(tmp_path: Path, there: str) -> None:
    recipe = write_coco(tmp_path, ANNOTATIONS)
    folder = tmp_path / "pictures"
    (folder / there).parent.mkdir(exist_ok=True)
    (folder / "a.png").rename(folder / there)
    found = Path(os.path.normpath(folder / there)) if there != "a.png.png" else None
    with pytest.raises(UserError, match=r"pictures/a.png does not exist") as caught:
        load_data(recipe, DETECTION).train[0]
    text = str(caught.value).split("; ")[0]
    assert text.endswith(f", but {found} does" if found else "does not exist")


def test_what_is_near_is_looked_for_anew_when_the_folder_has_changed(tmp_path: Path) -> None:
    assert near_it(tmp_path / "absent" / "a.png") == ""
    assert near_it(tmp_path / "a.png") == ""
    (tmp_path / "A.png").touch()
    os.utime(tmp_path, (1, 1))
    assert near_it(tmp_path / "a.png") == f", but {tmp_path / 'A.png'} does"


def test_files_that_no_person_has_put_there(tmp_path: Path) -> None:
    """Beside images, masks and predict's pictures, in the data's folder and in that of VOC's lists."""
    recipe = write_ade(tmp_path / "ade")
    for place in ("images/training", "annotations/training", ""):
        litter(tmp_path / "ade" / place)
    assert [Path(sample["name"]).name for sample in load_data(recipe, SEMANTIC).train] == ["b.jpg", "a.1.jpg"]
    folder = tmp_path / "pictures"
    write_picture(folder / "a.jpg", GREY)
    litter(folder)
    assert list(find_images([folder])) == [folder / "a.jpg"]
    write_voc(tmp_path / "voc", CAT)
    for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
        litter(tmp_path / "voc" / place)
    (tmp_path / "voc" / "ImageSets" / "Main" / "._val.txt").touch()
    assert len(load_data(voc_recipe(tmp_path / "voc"), DETECTION).train) == 1
    with pytest.raises(UserError, match=r"has no val.txt, it has trainval$"):
        load_data(voc_recipe(tmp_path / "voc", train_split="val"), DETECTION)


def test_pictures_by_their_suffixes(tmp_path: Path) -> None:
    """In either case; what Pillow can only write or tell by its name is no picture of a data set."""
    for name in ("a.JPG", "b.jpeg", "c.TiFF", "d.webp", "notes.pdf", "film.mpg", "weather.grib", "cube.h5", "e.txt"):
        write_picture(tmp_path / "images" / "training" / "x.png", GREY)
        (tmp_path / "images" / "training" / name).write_bytes((tmp_path / "images/training/x.png").read_bytes())
    (tmp_path / "images" / "training" / "x.png").unlink()
    found = find_images([tmp_path / "images" / "training"])
    assert [path.name for path in found] == ["a.JPG", "b.jpeg", "c.TiFF", "d.webp"]
    for path in found:
        write_picture(tmp_path / "annotations" / "training" / f"{path.stem}.png", np.ones((20, 30), dtype=np.uint8))
    recipe = ade_recipe(tmp_path, validation_split="train")
    assert [Path(sample["name"]).name for sample in load_data(recipe, SEMANTIC).train] == [path.name for path in found]


def test_a_folder_that_a_link_makes_endless_is_read_once(tmp_path: Path) -> None:
    """One that a link shows at another place is read at both."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "other").symlink_to(tmp_path / "a" / "b")
    assert sorted(files_below(tmp_path)) == [tmp_path / "a" / "b" / "c.png", tmp_path / "other" / "c.png"]


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    recipe = write_ade(tmp_path)
    (tmp_path / "images" / "training" / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="b.jpg cannot be decoded: it is empty"):
        load_data(recipe, SEMANTIC).train[0]


@pytest.mark.parametrize("name", ["a.jpg", "Icon.png", "thumbs.png", "eaDir", "b.db"])
def test_what_a_person_may_have_put_there(name: str) -> None:
    assert not is_litter(name)
