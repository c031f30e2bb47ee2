"""Public sets of masks as they are published, and exports of tools, with the addresses of both."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dense_prediction.data.inspection.looking import inspect
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.recipes.schema import Data
from written_sets import HEIGHT, WIDTH, draw, found_in, mask, names_of, opened, write


SEMANTIC, INSTANCES = "semantic_segmentation", "instance_segmentation"
Layout = Callable[[Path], None]
MASK = mask(0, 255)
FIELD = mask(255, 255, 255, 0)
"""What a camera sees."""


def kvasir(folder: Path) -> None:
    """https://datasets.simula.no/kvasir-seg: a name that says masks, and masks in JPEG."""
    for name in ("cju0", "cju1", "cju2"):
        draw(folder / "Kvasir-SEG" / "images" / f"{name}.jpg")
        draw(folder / "Kvasir-SEG" / "masks" / f"{name}.jpg", np.stack([MASK] * 3, -1), quality=90)
    write(folder / "Kvasir-SEG" / "kavsir_bboxes.json", '{"cju0": {"height": 20, "bbox": [{"label": "polyp"}]}}')


def isic_2017(folder: Path) -> None:
    """https://challenge.isic-archive.com/data/#2017: superpixels beside the pictures."""
    for split in ("Training", "Validation", "Test_v2"):
        for name in ("ISIC_01", "ISIC_02"):
            place = folder / f"ISIC-2017_{split}_Data"
            draw(place / f"{name}.jpg")
            draw(place / f"{name}_superpixels.png")
            draw(folder / f"ISIC-2017_{split}_Part1_GroundTruth" / f"{name}_segmentation.png", MASK)
        write(place / f"ISIC-2017_{split}_Data_metadata.csv", "image_id,age_approximate,sex\nISIC_01,55,male\n")


def deepglobe(folder: Path) -> None:
    """https://www.kaggle.com/datasets/balraj98/deepglobe-road-extraction-dataset: masks that are not pure."""
    blurred = np.where(MASK > 0, 250, 3).astype(np.uint8)
    for name in ("10", "11"):
        draw(folder / "train" / f"{name}_sat.jpg")
        draw(folder / "train" / f"{name}_mask.png", np.stack([blurred] * 3, -1))
        draw(folder / "valid" / f"2{name}_sat.jpg")
    write(folder / "class_dict.csv", "name,r,g,b\nroad,255,255,255\nbackground,0,0,0\n")
    write(folder / "metadata.csv", "image_id,split,sat_image_path,mask_path\n10,train,train/10_sat.jpg,\n")


def drive(folder: Path) -> None:
    """https://drive.grand-challenge.org: names that differ by split, and masks of what the camera sees."""
    for split, names in (("training", ("21", "22")), ("test", ("01", "02"))):
        for name in names:
            draw(folder / "DRIVE" / split / "images" / f"{name}_{split}.tif")
            draw(folder / "DRIVE" / split / "1st_manual" / f"{name}_manual1.gif", MASK)
            draw(folder / "DRIVE" / split / "mask" / f"{name}_{split}_mask.gif", FIELD)


def drive_without_masks_of_the_test(folder: Path) -> None:
    """The same as the challenge gives it out."""
    drive(folder)
    shutil.rmtree(folder / "DRIVE" / "test" / "1st_manual")


def chase(folder: Path) -> None:
    """https://researchinnovation.kingston.ac.uk/en/datasets/chasedb1-retinal-vessel-reference-dataset-4"""
    for name in ("Image_01L", "Image_01R", "Image_02L"):
        draw(folder / f"{name}.jpg")
        draw(folder / f"{name}_1stHO.png", MASK > 0)
        draw(folder / f"{name}_2ndHO.png", FIELD > 0)


def crack500(folder: Path) -> None:
    """https://github.com/fyangneil/pavement-crack-detection: traincrop, valcrop and testcrop."""
    for split in ("train", "val", "test"):
        for name in "ab":
            draw(folder / f"{split}crop" / f"{name}.jpg")
            draw(folder / f"{split}crop" / f"{name}.png", MASK)


def deepcrack(folder: Path) -> None:
    """https://github.com/yhlleo/DeepCrack: train_img with train_lab."""
    for split in ("train", "test"):
        for name in "ab":
            draw(folder / f"{split}_img" / f"{split}{name}.jpg")
            draw(folder / f"{split}_lab" / f"{split}{name}.png", MASK)


def polyps(folder: Path) -> None:
    """https://github.com/DengPingFan/PraNet: one folder to learn from, several to test on, called in another way."""
    for name in "ab":
        draw(folder / "TrainDataset" / "image" / f"{name}.png")
        draw(folder / "TrainDataset" / "masks" / f"{name}.png", MASK)
        for place in ("CVC-300", "ETIS"):
            draw(folder / "TestDataset" / place / "images" / f"{name}.png")
            draw(folder / "TestDataset" / place / "masks" / f"{name}.png", MASK)


def busi(folder: Path) -> None:
    """https://scholar.cu.edu.eg/?q=afahmy/pages/dataset: a second mask of some pictures."""
    for kind in ("benign", "malignant"):
        for place in (1, 2):
            draw(folder / "Dataset_BUSI_with_GT" / kind / f"{kind} ({place}).png")
            draw(folder / "Dataset_BUSI_with_GT" / kind / f"{kind} ({place})_mask.png", MASK > 0)
        draw(folder / "Dataset_BUSI_with_GT" / kind / f"{kind} (1)_mask_1.png", MASK > 0)


def carvana(folder: Path) -> None:
    """https://www.kaggle.com/c/carvana-image-masking-challenge/data: GIFs, and pictures without masks in test."""
    for name in ("0a_01", "0a_02"):
        draw(folder / "train" / f"{name}.jpg")
        draw(folder / "train_masks" / f"{name}_mask.gif", MASK)
        draw(folder / "test" / f"9{name}.jpg")
    write(folder / "metadata.csv", "id,year,make\n0a,2010,Acura\n")


def palettes(folder: Path) -> None:
    """GIFs and PNGs as drawing programs save them: which number is white differs from file to file."""
    for name, colours in (("a", [0, 0, 0, 255, 255, 255]), ("b", [255, 255, 255, 0, 0, 0])):
        draw(folder / "images" / f"{name}.png")
        numbers = mask(0, 1) if name == "a" else mask(1, 0)
        picture = Image.fromarray(numbers).convert("P")
        picture.putpalette(colours)
        (folder / "masks").mkdir(exist_ok=True)
        picture.save(folder / "masks" / f"{name}.png")


def one_number(folder: Path) -> None:
    """The same with a palette in which white is a number far away."""
    for name in "ab":
        draw(folder / "images" / f"{name}.png")
        picture = Image.fromarray(mask(0, 215)).convert("P")
        picture.putpalette([*([0] * 645), 255, 255, 255])
        (folder / "masks").mkdir(exist_ok=True)
        picture.save(folder / "masks" / f"{name}.png")


PUBLISHED = [
    (kvasir, [3, 0], "2 classes (background, foreground) below and from 128 on, as JPEG has blurred black and white"),
    (isic_2017, [2, 2, 2], "for 0 and 255"),
    (deepglobe, [2, 0], "2 classes (background, road) below and from 128 on, as a change of size has blurred"),
    (drive, [2, 0, 2], "background, foreground"),
    (drive_without_masks_of_the_test, [2, 0], "background, foreground"),
    (chase, [3, 0], "for 0 and 1"),
    (crack500, [2, 2, 2], "for 0 and 255"),
    (deepcrack, [2, 0, 2], "for 0 and 255"),
    (polyps, [2, 0, 4], "for 0 and 255"),
    (busi, [4, 0], "for 0 and 1"),
    (carvana, [2, 0], "background, foreground"),
    (palettes, [2, 0], "(background, foreground) by their shades"),
    (one_number, [2, 0], "(background, foreground) by their shades"),
]


@pytest.mark.parametrize(("layout", "counts", "words"), PUBLISHED, ids=[each[0].__name__ for each in PUBLISHED])
def test_sets_of_two_classes(layout: Layout, counts: list[int], words: str, tmp_path: Path) -> None:
    """All of their samples are good ones, in which the right half is the second class."""
    layout(tmp_path)
    found = found_in(tmp_path, SEMANTIC)
    assert words in found.words
    options = TypeAdapter(Data).validate_python(found.data)
    data = load_data(options, TASKS[SEMANTIC])
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    sizes = [len(split) for split in splits]
    assert [sizes[0] + sizes[1], 0, *sizes[2:]] == counts if counts[1] == 0 else sizes == counts
    for split in splits:
        for index in range(len(split)):
            assert split[index]["semantic_map"].tolist() == mask(0, 1).tolist()
    keys = ["train_split", "validation_split", "test_split"][: len(splits)]
    assert all(facts.bad == 0 for facts in inspect(options, TASKS[SEMANTIC], data, keys).facts.values())


def test_blurred_masks_are_two_classes_only_where_nearly_all_is_black_or_white(tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / "images" / f"{name}.png")
        draw(tmp_path / "masks" / f"{name}.jpg", mask(0, 90, 170, 255))
    with pytest.raises(UserError, match="as JPEG blurs them: save them as PNG"):
        found_in(tmp_path, SEMANTIC)
    for name in "ab":
        (tmp_path / "masks" / f"{name}.jpg").unlink()
        draw(tmp_path / "masks" / f"{name}.png", mask(*range(19), 255))
    assert "foreground_from" not in found_in(tmp_path, SEMANTIC).data, "ids and void"


def cityscapes(folder: Path) -> None:
    """https://github.com/mcordts/cityscapesScripts#dataset-structure: four files for each picture."""
    for split in ("train", "val"):
        for place in ("1", "2"):
            name = f"aachen_{place}_19"
            draw(folder / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png")
            labels = folder / "gtFine" / split / "aachen" / f"{name}_gtFine"
            draw(Path(f"{labels}_labelIds.png"), mask(0, 7, 23, 26))
            draw(Path(f"{labels}_instanceIds.png"), mask(0, 7, 2000, 2001, kind=np.uint16))
            draw(Path(f"{labels}_color.png"), np.stack([mask(0, 9, 90, 7)] * 4, -1))
            write(Path(f"{labels}_polygons.json"), '{"imgHeight": 20, "imgWidth": 40, "objects": []}')


def cvat_cityscapes(folder: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-cityscapes/"""
    for name in "abc":
        draw(folder / "imgsFine" / "leftImg8bit" / "default" / f"{name}_leftImg8bit.png")
        labels = folder / "gtFine" / "default" / f"{name}_gtFine"
        draw(Path(f"{labels}_labelIds.png"), mask(0, 1, 2, 3))
        draw(Path(f"{labels}_instanceIds.png"), mask(0, 1, 2, 3))
        draw(Path(f"{labels}_color.png"), np.stack([mask(0, 9, 90, 7)] * 3, -1))
    write(folder / "label_colors.txt", "0 0 0 background\n9 9 9 class 1\n90 90 90 class 2\n7 7 7 class 3\n")


def plants(folder: Path) -> None:
    """https://www.plant-phenotyping.org/datasets (CVPPP): pictures, labels and foreground in one folder."""
    for name in ("plant001", "plant002", "plant003"):
        draw(folder / "A1" / f"{name}_rgb.png")
        draw(folder / "A1" / f"{name}_label.png", mask(0, 1, 2, 3))
        draw(folder / "A1" / f"{name}_fg.png", mask(0, 255))


def camvid(folder: Path) -> None:
    """http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid: 701_StillsRaw_full and LabeledApproved_full."""
    for name in ("0001TP_1", "0001TP_2"):
        draw(folder / "701_StillsRaw_full" / f"{name}.png")
        colours = np.stack([mask(0, 64, 9, 8), mask(0, 128, 9, 8), mask(0, 64, 9, 8)], -1)
        draw(folder / "LabeledApproved_full" / f"{name}_L.png", colours)
    write(folder / "label_colors.txt", "0 0 0\tbackground\n64 128 64\t\tclass 1\n9 9 9\tclass 2\n8 8 8\tclass 3\n")


def cvat_camvid(folder: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-camvid/"""
    for name in "ab":
        draw(folder / "default" / f"{name}.png")
        draw(folder / "defaultannot" / f"{name}.png", np.stack([mask(0, 5, 6, 7)] * 3, -1))
    write(folder / "label_colors.txt", "0 0 0 background\n5 5 5 class 1\n6 6 6 class 2\n7 7 7 class 3\n")
    write(folder / "default.txt", "/default/a.png /defaultannot/a.png\n")


def kitti_semantics(folder: Path) -> None:
    """https://www.cvlibs.net/datasets/kitti/eval_semseg.php"""
    for name in ("000000_10", "000001_10"):
        draw(folder / "training" / "image_2" / f"{name}.png")
        draw(folder / "training" / "semantic" / f"{name}.png", mask(0, 1, 2, 3))
        draw(folder / "training" / "semantic_rgb" / f"{name}.png", np.stack([mask(0, 9, 90, 7)] * 3, -1))
        draw(folder / "testing" / "image_2" / f"{name}.png")


def drone(folder: Path) -> None:
    """https://www.kaggle.com/datasets/bulentsiyah/semantic-drone-dataset: class_dict_seg.csv"""
    for name in ("000", "001"):
        draw(folder / "dataset" / "semantic_drone_dataset" / "original_images" / f"{name}.jpg")
        draw(folder / "dataset" / "semantic_drone_dataset" / "label_images_semantic" / f"{name}.png", mask(0, 1, 2, 3))
        draw(folder / "RGB_color_image_masks" / f"{name}.png", np.stack([mask(0, 9, 90, 7)] * 3, -1))
    classes = "name, r, g, b\nunlabeled, 0, 0, 0\nclass 1, 9, 9, 9\nclass 2, 90, 90, 90\nclass 3, 7, 7, 7\n"
    write(folder / "class_dict_seg.csv", classes)


OF_CLASSES = [cityscapes, cvat_cityscapes, plants, camvid, cvat_camvid, kitti_semantics, drone]


@pytest.mark.parametrize("layout", OF_CLASSES, ids=lambda layout: layout.__name__)
def test_sets_of_classes(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path)
    data = opened(found_in(tmp_path, SEMANTIC), SEMANTIC)
    if layout is cityscapes:
        assert (len(data.labels), data.labels[7], data.labels[26]) == (34, "road", "car")
    else:
        assert data.labels == ["unlabeled" if layout is drone else "background", "class 1", "class 2", "class 3"]
    assert len(data.train) + len(data.validation) == {cityscapes: 4, cvat_cityscapes: 3, plants: 3}.get(layout, 2)
    for split in (data.train, data.validation):
        for index in range(len(split)):
            values = set(split[index]["semantic_map"].unique().tolist())
            assert values == ({0, 7, 23, 26} if layout is cityscapes else {0, 1, 2, 3}), names_of(split)


@pytest.mark.parametrize("folder", ["SegmentationClass", "labels_semantic", "masks"])
def test_what_is_called_classes_or_named_is_no_objects(folder: str, tmp_path: Path) -> None:
    """Masks with several numbers, not the same in all, each in one piece: by their pixels they may be objects."""
    for name, numbers in (("a", (0, 1, 2, 3)), ("b", (0, 2, 0, 2)), ("c", (0, 0, 3, 3))):
        draw(tmp_path / "images" / f"{name}.png")
        draw(tmp_path / folder / f"{name}.png", mask(*numbers))
    if folder == "masks":
        assert found_in(tmp_path, INSTANCES).data["format"] == "instance_masks"
        write(tmp_path / "class_names.txt", "_background_\ncat\ndog\nbird\n")
    with pytest.raises(UserError, match="serves semantic_segmentation, not instance_segmentation"):
        found_in(tmp_path, INSTANCES)


def test_names_of_slides_that_lead_nowhere(tmp_path: Path) -> None:
    """https://zenodo.org/records/1175282 (TNBC): Slide_01 with GT_01."""
    for number in ("01", "02"):
        draw(tmp_path / f"Slide_{number}" / f"{number}_1.png")
        draw(tmp_path / f"GT_{number}" / f"{number}_1.png", MASK)
    with pytest.raises(UserError, match="do not belong together, such as Slide_01/01_1.png and GT_01/01_1.png"):
        found_in(tmp_path, SEMANTIC)


def outlined(*numbers: int) -> np.ndarray:
    """(H, W, 3) or (H, W): objects of these numbers or colours, each with VOC's border round it."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for place, number in enumerate(numbers):
        ids[3:11, 2 + 12 * place : 12 + 12 * place] = 255
        ids[4:10, 3 + 12 * place : 11 + 12 * place] = number
    return ids


def coloured(ids: np.ndarray) -> np.ndarray:
    """By VOC's colours."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[1:4], colours[255] = [[128, 0, 0], [0, 128, 0], [128, 128, 0]], [224, 224, 192]
    return colours[ids]


def cvat_masks(folder: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-smask/ (Segmentation mask 1.1), with pictures."""
    for name in "abc":
        draw(folder / "JPEGImages" / f"{name}.jpg")
        draw(folder / "SegmentationClass" / f"{name}.png", coloured(outlined(1, 1, 2)))
        draw(folder / "SegmentationObject" / f"{name}.png", coloured(outlined(1, 2, 3)))
    write(folder / "ImageSets" / "Segmentation" / "default.txt", "a\nb\nc\n")
    classes = "background:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\nborder:224,224,192::\n"
    write(folder / "labelmap.txt", f"# label:color_rgb:parts:actions\n{classes}")


def labelme_voc(folder: Path) -> None:
    """https://github.com/wkentaro/labelme/tree/main/examples/instance_segmentation/data_dataset_voc"""
    for name in "abc":
        draw(folder / "JPEGImages" / f"{name}.jpg")
        for kind, numbers in (("SegmentationClass", (1, 1, 2)), ("SegmentationObject", (1, 2, 3))):
            draw(folder / kind / f"{name}.png", outlined(*numbers))
            draw(folder / f"{kind}Visualization" / f"{name}.jpg")
    write(folder / "class_names.txt", "_background_\ncat\ndog\n")


@pytest.mark.parametrize("layout", [cvat_masks, labelme_voc], ids=lambda layout: layout.__name__)
def test_objects_beside_classes(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path, INSTANCES)
    assert "a number for each object: SegmentationObject, train 3 pictures" in found.words
    data = opened(found, INSTANCES)
    assert data.labels == ["cat", "dog"] and found.words.endswith(("of labelmap.txt", "of class_names.txt"))
    sample = data.train[0]
    by_place = dict(zip(map(tuple, sample["boxes"].tolist()), sample["labels"].tolist()))
    assert [by_place[place] for place in sorted(by_place)] == [0, 0, 1]
    assert sorted(sample["boxes"].tolist()) == [[3, 4, 11, 10], [15, 4, 23, 10], [27, 4, 35, 10]], "without borders"
    glance = data.train.glance
    assert glance is not None and sorted(map(str, glance(0).objects)) == ["cat", "cat", "dog"]
    assert opened(found_in(tmp_path, SEMANTIC), SEMANTIC).labels[:3] == ["background", "cat", "dog"]


def test_objects_without_names_of_classes(tmp_path: Path) -> None:
    """All are of one class, and borders are none."""
    labelme_voc(tmp_path)
    (tmp_path / "class_names.txt").unlink()
    data = opened(found_in(tmp_path, INSTANCES), INSTANCES)
    assert data.labels == ["object"]
    assert sorted(data.train[0]["boxes"].tolist()) == [[3, 4, 11, 10], [15, 4, 23, 10], [27, 4, 35, 10]]


def test_what_is_learnt_is_never_left_out_for_a_larger_split(tmp_path: Path) -> None:
    """Where the masks of the splits are called in two ways that one pattern cannot say."""
    for split, ending, names in (("train", "_m", "a"), ("test", "_gt", "bcd")):
        for name in names:
            draw(tmp_path / split / "images" / f"{name}.png")
            draw(tmp_path / split / "masks" / f"{name}{ending}.png", MASK)
    assert found_in(tmp_path, SEMANTIC).data["images"] == {"train": "train/images"}
