"""Pictures of predictions: what is drawn where, in which colour, on pictures of every size."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_prediction.data.samples import IGNORE_INDEX
from dense_prediction.drawing import pictures
from dense_prediction.drawing.colors import class_color, object_color
from dense_prediction.drawing.pages import SHEET_CELL, comparison, contact_sheet, with_legend
from dense_prediction.drawing.styles import Style
from dense_prediction.drawing.tags import MOST_TAGGED, Tags
from dense_prediction.evaluation.tasks import TASKS


LABELS = ["person", "traffic light", "dog"]
SIZES = [(33, 47), (47, 33), (640, 480), (4000, 3000), (1, 1), (2000, 3), (5, 900)]
NAMES = ["semantic_segmentation", "object_detection", "instance_segmentation", "panoptic_segmentation"]
BLACK = (0, 0, 0)

Annotation = dict[str, Any]


def left_and_right(task: str, size: tuple[int, int]) -> Annotation:
    """The left half is class 2, the right half class 1."""
    width, height = size
    ids = torch.zeros(height, width, dtype=torch.int64)
    ids[:, width // 2 :] = 1
    labels = torch.tensor([2, 1])
    boxes = torch.tensor([[0, 0, width // 2, height], [width // 2, 0, width, height]]).float()
    objects = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.9, 0.5])}
    return {
        "semantic_segmentation": {"semantic_map": labels[ids]},
        "object_detection": objects,
        "instance_segmentation": objects | {"masks": torch.stack([ids == 0, ids == 1])},
        "panoptic_segmentation": {"segment_map": ids, "labels": labels, "scores": torch.tensor([0.9, 0.5])},
    }[task]


def draw(image: Image.Image, annotation: dict[str, Any], labels: list[str]) -> Image.Image:
    """As the task that has such annotations draws them."""
    maps = {"semantic_map": "semantic_segmentation", "segment_map": "panoptic_segmentation"}
    name = next((task for column, task in maps.items() if column in annotation), "instance_segmentation")
    return pictures.draw(image, annotation, labels, TASKS[name].draw)


def black(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)


def colors_of(picture: Image.Image) -> set[tuple[int, ...]]:
    return {color for _, color in picture.getcolors(picture.width * picture.height)}


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_task_on_pictures_of_every_size(task: str, size: tuple[int, int]) -> None:
    """Large ones keep their size, small ones become a whole multiple of it; the legend stands below."""
    annotation, image = left_and_right(task, size), black(size)
    picture = draw(image, annotation, LABELS)
    factor = picture.width // size[0]
    assert picture.size == (factor * size[0], factor * size[1])
    assert factor == 1 if max(size) > 192 else 192 < max(picture.size) <= 384
    assert colors_of(image) == {BLACK}, "the image itself must stay as it is"
    page = with_legend(picture, [annotation], LABELS)
    assert page.width == picture.width
    assert page.crop((0, 0, *picture.size)).tobytes() == picture.tobytes()
    legend = colors_of(page.crop((0, picture.height, *page.size)))
    color = class_color if task == "semantic_segmentation" else object_color
    if min(size) > 1 and page.width > 100:
        assert {color(1), color(2)} <= legend
    if color is object_color:  # the grey of class 0 is also that of smooth letters
        assert color(0) not in legend, "only what is present"


@pytest.mark.parametrize("task", NAMES)
def test_both_sides_have_their_own_colour(task: str) -> None:
    picture = draw(black((640, 480)), left_and_right(task, (640, 480)), LABELS)
    left, right = picture.getpixel((160, 400)), picture.getpixel((480, 400))
    if task == "object_detection":
        assert left == right == BLACK, "a box is empty inside"
        assert picture.getpixel((1, 400)) == object_color(2)
        assert picture.getpixel((639, 400)) == object_color(1)
    else:
        assert left != right
        color = class_color if task == "semantic_segmentation" else object_color
        for seen, label in ((left, 2), (right, 1)):
            assert seen == pytest.approx([0.55 * channel for channel in color(label)], abs=1)


def test_lines_and_names_grow_with_the_picture() -> None:
    styles = [Style.for_size(size) for size in ((264, 376), (640, 480), (4000, 3000))]
    assert [style.line for style in styles] == [1, 2, 12]
    assert styles[0].text >= 11
    assert 5 < styles[2].text / styles[1].text < 8
    for size in ((640, 480), (4000, 3000)):
        edge = np.array(draw(black(size), left_and_right("object_detection", size), LABELS))[
            size[1] // 2, : size[0] // 4
        ]
        assert (edge.any(-1)).sum() == Style.for_size(size).line


def test_unlabelled_pixels_are_darkened_and_no_class() -> None:
    ids = torch.full((480, 640), IGNORE_INDEX)
    white = Image.new("RGB", (640, 480), "white")
    assert colors_of(draw(white, {"semantic_map": ids}, LABELS)) == {(114,) * 3}
    void = {"segment_map": torch.full((480, 640), -1), "labels": torch.zeros(0, dtype=torch.int64)}
    assert colors_of(draw(white, void, LABELS)) == {(114,) * 3}
    for annotation in ({"semantic_map": ids}, void):
        page = with_legend(white, [annotation], LABELS)
        assert colors_of(page) == {(255,) * 3}


@pytest.mark.parametrize("task", ["object_detection", "instance_segmentation"])
def test_nothing_found_leaves_the_image(task: str) -> None:
    annotation = {key: value[:0] for key, value in left_and_right(task, (640, 480)).items()}
    assert colors_of(draw(black((640, 480)), annotation, LABELS)) == {BLACK}


def test_boxes_follow_an_enlarged_picture() -> None:
    annotation = {"boxes": torch.tensor([[10, 10, 20, 25]]).float(), "labels": torch.tensor([2])}
    picture = draw(black((40, 30)), annotation, LABELS)
    assert picture.size == (360, 270)
    drawn = np.argwhere(np.all(np.array(picture) == object_color(2), axis=-1))
    assert drawn[:, 1].min() == 90, "the left side"
    assert drawn[:, 0].max() == 225, "the lower side"


def test_low_scores_are_not_shown_beside_the_truth() -> None:
    truth = left_and_right("instance_segmentation", (640, 480))
    scored = truth | {"scores": torch.tensor([0.9, 0.1])}
    picture = draw(black((640, 480)), scored, LABELS)
    assert BLACK not in (picture.getpixel((160, 400)), picture.getpixel((480, 400)))
    empty = {key: value[:0] for key, value in truth.items()}
    page = comparison([(black((640, 480)), empty, scored)], LABELS, TASKS["instance_segmentation"].draw)
    assert object_color(2) in colors_of(page)
    assert object_color(1) not in colors_of(page)


def test_objects_of_one_class_have_shades_of_their_own() -> None:
    assert len({object_color(2, index) for index in range(6)}) == 6
    assert len({class_color(label) for label in range(150)}) > 140
    annotation = left_and_right("panoptic_segmentation", (640, 480)) | {"labels": torch.tensor([2, 2])}
    picture = draw(black((640, 480)), annotation, LABELS)
    assert picture.getpixel((160, 400)) != picture.getpixel((480, 400))


def test_odd_boxes_and_masks_are_drawn_as_far_as_they_go() -> None:
    """Outside the picture, without extent, turned inside out, an empty mask."""
    boxes = torch.tensor([[-50, -50, 700, 500], [10, 10, 10, 10], [50, 60, 20, 30], [900, 900, 950, 950]]).float()
    annotation = {"boxes": boxes, "labels": torch.tensor([0, 1, 2, 0]), "masks": torch.zeros(4, 480, 640).bool()}
    assert draw(black((640, 480)), annotation, LABELS).size == (640, 480)


@pytest.mark.parametrize("task", NAMES)
def test_comparison_has_a_row_for_each_image_and_three_columns(task: str) -> None:
    sizes = [(1600, 1200), (33, 47), (640, 480)]
    rows = []
    for size in sizes:
        truth = left_and_right(task, size)
        truth.pop("scores", None)
        truth |= {"is_crowd": torch.tensor([False, True])} if "labels" in truth else {}
        rows.append((Image.new("RGB", size, "white"), truth, left_and_right(task, size)))
    page = comparison(rows, LABELS, TASKS[task].draw_beside or TASKS[task].draw)
    assert 3 * 800 <= page.width < 2600
    assert 600 + 376 + 480 < page.height < 1900
    middle = [page.getpixel((x, 300)) for x in (200, 1000, 1800)]
    assert middle[0] == (255, 255, 255)
    if task == "object_detection":
        assert middle[1:] == [(255, 255, 255)] * 2
    else:
        assert middle[1] == middle[2] != (255, 255, 255)
    if task == "semantic_segmentation":
        assert middle[1] == class_color(2), "not mixed with the image, which stands beside it"


Rectangle = tuple[float, float, float, float]


@pytest.fixture
def plates(monkeypatch: pytest.MonkeyPatch) -> list[Rectangle]:
    """Where names are written."""
    written: list[Rectangle] = []
    monkeypatch.setattr(Tags, "write", lambda tags, place, *_: (written.append(place), tags.taken.append(place)))
    return written


def grid(count: int, side: int = 40) -> Annotation:
    """Objects of class 1 in rows of ten."""
    corners = torch.tensor([[60 * (place % 10), 60 * (place // 10)] for place in range(count)]).float() + 10
    return {"boxes": torch.cat([corners, corners + side], dim=1), "labels": torch.ones(count, dtype=torch.int64)}


def as_segments(annotation: Annotation) -> Annotation:
    ids = torch.full((480, 640), -1)
    for place, (left, top, right, bottom) in enumerate(annotation["boxes"].int().tolist()):
        ids[top:bottom, left:right] = place
    return {"segment_map": ids, "labels": annotation["labels"]}


@pytest.mark.parametrize("kind", [dict, as_segments])
def test_many_objects_and_those_of_the_only_class_have_no_names(kind: Any, plates: list[Rectangle]) -> None:
    draw(black((640, 480)), kind(grid(MOST_TAGGED)), ["a", "b"])
    assert len(plates) == MOST_TAGGED == 20
    draw(black((640, 480)), kind(grid(MOST_TAGGED + 1)), ["a", "b"])
    only = kind(grid(3))
    draw(black((640, 480)), only | {"labels": torch.zeros(3, dtype=torch.int64)}, ["a"])
    assert len(plates) == MOST_TAGGED


def test_names_hide_neither_each_other_nor_small_objects(plates: list[Rectangle]) -> None:
    """Of a crowd, as many as there is room for."""
    places = torch.randint(0, 120, (MOST_TAGGED, 2), generator=torch.Generator().manual_seed(0)).float() + 40
    annotation = {"boxes": torch.cat([places, places + 12], dim=1), "labels": torch.arange(MOST_TAGGED) % 3}
    draw(black((640, 480)), annotation, LABELS)
    assert 3 < len(plates) < MOST_TAGGED

    def shared(one: Rectangle, other: Rectangle) -> float:
        sides = [min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1)]
        return max(0.0, sides[0]) * max(0.0, sides[1])

    for place, one in enumerate(plates):
        assert 0 <= one[0] < one[2] <= 640 and 0 <= one[1] < one[3] <= 480
        assert all(shared(one, other) == 0 for other in plates[place + 1 :])
        assert all(shared(one, box) <= 0.3 * 12 * 12 for box in annotation["boxes"].tolist())


def test_an_object_at_the_edge_has_its_name_inside_the_picture(plates: list[Rectangle]) -> None:
    boxes = torch.tensor([[0, 0, 640, 480], [560, 440, 640, 480]]).float()
    draw(black((640, 480)), {"boxes": boxes, "labels": torch.tensor([0, 1])}, LABELS)
    assert len(plates) == 2


@pytest.mark.parametrize("side", [3, 6, 12])
def test_small_objects_are_outlined_and_not_covered(side: int) -> None:
    left, top = 300, 200
    white = Image.new("RGB", (640, 480), "white")
    mask = torch.zeros(1, 480, 640, dtype=torch.bool)
    mask[0, top : top + side, left : left + side] = True
    boxes = torch.tensor([[left, top, left + side - 1, top + side - 1]]).float()
    for extra in ({}, {"masks": mask}):
        picture = np.array(draw(white, {"boxes": boxes, "labels": torch.tensor([1])} | extra, ["a", "b"]))
        assert (picture[top : top + side, left : left + side] == 255).all(), "what is in it is seen as it is"
        assert tuple(picture[top - 1, left]) == tuple(picture[top, left - 1]) == object_color(1)
    ids = torch.where(mask[0], 0, 1)
    drawn = np.array(draw(black((640, 480)), {"segment_map": ids, "labels": torch.tensor([1, 2])}, ["only"] * 3))
    assert (drawn[top : top + side, left : left + side] != 255).any(-1).all(), "no border on a small segment"
    assert (drawn[top - 1, left : left + side] == 255).all()


def test_large_masks_are_tinted_and_have_no_box() -> None:
    mask = torch.zeros(1, 480, 640, dtype=torch.bool)
    mask[0, 100:300, 100:300] = mask[0, 300:400, 300:400] = True
    annotation = {"boxes": torch.tensor([[100, 100, 400, 400]]).float(), "labels": torch.tensor([1]), "masks": mask}
    picture = draw(black((640, 480)), annotation, ["a", "b"])
    assert picture.getpixel((200, 200)) not in (BLACK, object_color(1))
    assert picture.getpixel((399, 150)) == BLACK
    empty = draw(black((640, 480)), annotation | {"masks": torch.zeros_like(mask)}, ["only", "one"])
    assert empty.getpixel((400, 150)) == object_color(1), "what has no pixel has a box at least"


def test_lines_are_thin_on_small_objects_of_large_pictures() -> None:
    style = Style.for_size((4000, 3000))
    assert style.line == 12
    assert [style.for_object(side, side).line for side in (20, 60, 2000)] == [2, 6, 12]
    assert [style.for_object(side, side).text for side in (20, 180, 2000)] == [11, 30, style.text]


def test_boxes_are_seen_on_any_ground() -> None:
    for ground in ("white", "black"):
        box = torch.tensor([[100, 100, 300, 300]]).float()
        for label in range(30):
            annotation = {"boxes": box, "labels": torch.tensor([label])}
            drawn = np.array(draw(Image.new("RGB", (640, 480), ground), annotation, ["x"] * 30)).astype(int)
            difference = np.abs(drawn[200, 95:105] - drawn[200, 90]).max()
            assert difference > 180, (ground, label)


@pytest.mark.parametrize("task", NAMES)
def test_a_contact_sheet_holds_pictures_of_every_size(task: str) -> None:
    cells = [(black(size), left_and_right(task, size), f"folder/{size}.png") for size in SIZES]
    sheet = contact_sheet(cells, LABELS, TASKS[task].draw)
    assert sheet.width == 4 * (SHEET_CELL + 8)
    assert sheet.height > SHEET_CELL
    alone = contact_sheet(cells[:1], LABELS, TASKS[task].draw)
    assert 200 + 8 <= alone.width < SHEET_CELL, "no wider than its widest picture and its caption"
