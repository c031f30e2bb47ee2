"""What follows from the pictures: how large the model sees them, how they are varied, and what it has to find."""

import math
import re

from .case import Case, Derived, clamp, multiple, rule


THIN = 0.6
"""IoU; what keeps less when it is seen in cells of 16 pixels needs every pixel of its pictures."""

SIDES = {"cpu": 192, "gpu": 512}
"""Of a training crop for label maps."""
LONGEST = {"cpu": 768, "gpu": 1536}
"""Of what is seen at once, for label maps."""
SQUARES = {"cpu": (224, 512), "gpu": (448, 1024)}
"""Of pictures with objects: the smallest and the largest side."""
FEW_CORES, SQUARE_OF_FEW_CORES = 8, 320
"""Which need seconds for a picture of 512 x 512."""

SMALL = 24
"""Pixels that a small object's side should have in what the model sees, three cells of its finest map."""
PARTS = 0.1
"""Of the objects that are smaller than a small one."""

ROOM = 1.5
"""Queries for each object of the fullest picture."""


def is_thin(case: Case) -> bool:
    """Whether what is annotated is lost in the cells of a plain ViT."""
    return case.traits.kept_by_cells < THIN


def has_label_maps(case: Case) -> bool:
    return case.task == "semantic_segmentation"


def on(case: Case) -> str:
    return "cpu" if case.device.is_cpu else "gpu"


def seen_size(case: Case) -> tuple[int, int]:
    """Height and width in which label maps are learnt and measured: that of the pictures, as far as there is room."""
    height, width = case.traits.median_size
    factor = min(1.0, LONGEST[on(case)] / max(height, width))
    factor = max(factor, 64 / min(height, width))
    return round(height * factor), round(width * factor)


def square_side(case: Case) -> int:
    """The side to which pictures with objects are brought, so that a small object has `SMALL` pixels."""
    shares = case.traits.object_shares
    low, high = SQUARES[on(case)]
    if case.device.is_cpu and case.device.cores < FEW_CORES:
        high = SQUARE_OF_FEW_CORES
    if not shares:
        return multiple((low + high) / 2)
    small = shares[int(PARTS * (len(shares) - 1))]
    return multiple(clamp(SMALL / max(small, 1e-6), low, high))


def _small_object(case: Case) -> str:
    shares, sides = case.traits.object_shares, case.traits.object_sides
    if not shares:
        return "no object was seen"
    place = int(PARTS * (len(shares) - 1))
    return f"a tenth of the objects are smaller than {sides[place]:.0f} pixels, {shares[place]:.1%} of the picture"


def _pictures_of(case: Case) -> str:
    height, width = case.traits.median_size
    same = "" if len(set(case.traits.sizes)) == 1 else " in the middle"
    return f"pictures of {height} x {width}{same}"


@rule(
    "transforms.base_size",
    "label maps: the pictures' own height and width, smaller where they are too large for the device",
    "64 pixels to 768 on a CPU, 1536 on a GPU",
)
def base_size(case: Case) -> Derived | None:
    if not has_label_maps(case):
        return None
    size, own = seen_size(case), case.traits.median_size
    change = "as they are" if size == own else f"too {'large' if size < own else 'small'} as they are"
    return list(size), f"{_pictures_of(case)}, {change}"


@rule(
    "transforms.crop_size",
    "label maps: a part of the picture; objects: so large that a small object (a tenth are smaller) has 24 pixels",
    "multiples of 32; label maps 64 to 192 on a CPU, 512 on a GPU; objects 224 to 512 on a CPU (320 with fewer than "
    "8 cores), 448 to 1024 on a GPU",
)
def crop_size(case: Case) -> Derived | None:
    if not has_label_maps(case):
        side = square_side(case)
        return [side, side], _small_object(case)
    shortest = min(case["transforms.base_size"] or seen_size(case))
    side = int(clamp(shortest * 3 / 4 // 32 * 32, 64, SIDES[on(case)]))
    return [side, side], f"three quarters of {shortest} pixels, at most {SIDES[on(case)]} on this device"


@rule(
    "transforms.shortest_edges",
    "what is measured has the size of what is learnt; masks of objects are learnt in sizes round that of a crop",
    "multiples of 32 for objects",
)
def shortest_edges(case: Case) -> Derived | None:
    if has_label_maps(case):
        if evaluates_as_is(case):
            return None
        return [min(case["transforms.base_size"])], "as they are learnt"
    if case["transforms.resize"] != "shortest_edge":
        return None
    side = case["transforms.crop_size"][0]
    return sorted({multiple(side * share) for share in (0.75, 0.875, 1.0)}), f"three quarters of {side} pixels to all"


@rule("transforms.longest_edge", "the longer side at most twice the shorter one, or as label maps are learnt", "")
def longest_edge(case: Case) -> Derived | None:
    if has_label_maps(case):
        return None if evaluates_as_is(case) else (max(case["transforms.base_size"]), "as they are learnt")
    if case["transforms.resize"] != "shortest_edge":
        return None
    return 2 * max(case["transforms.shortest_edges"]), "of pictures that are long and narrow"


@rule("transforms.evaluation_resize", "label maps: none where all pictures are learnt in their own size", "")
def evaluation_resize(case: Case) -> Derived | None:
    if not has_label_maps(case):
        return None
    return ("none", "all have one size") if evaluates_as_is(case) else ("shortest_edge", "they differ in size")


def evaluates_as_is(case: Case) -> bool:
    """Whether pictures are measured in the size that they have."""
    sizes = set(case.traits.sizes)
    return len(sizes) == 1 and list(case["transforms.base_size"] or ()) == list(*sizes)


WINDOWS_FROM = 1.5
"""Times the crop, from which what the head pools over a whole picture is another than what it has learnt."""


def sees_in_windows(case: Case) -> bool:
    """Whether pictures are so much larger than what is learnt that they are measured in pieces."""
    size, crop = case["transforms.base_size"], case["transforms.crop_size"]
    return has_label_maps(case) and max(side / part for side, part in zip(size, crop)) > WINDOWS_FROM


@rule("evaluation.window", "label maps: the training crop, where pictures are more than half as large again", "")
def window(case: Case) -> Derived | None:
    if not sees_in_windows(case):
        return None
    return list(case["transforms.crop_size"]), "pictures are seen in pieces as large as those that were learnt"


@rule("evaluation.stride", "two thirds of the window", "")
def stride(case: Case) -> Derived | None:
    size = case["evaluation.window"]
    return None if size is None else ([max(1, side * 2 // 3) for side in size], "two thirds of a window")


@rule("transforms.scale", "label maps: a little smaller to half as large again", "0.75 to 1.5")
def scale(case: Case) -> Derived | None:
    return ([0.75, 1.5], "the pictures say how large things are") if has_label_maps(case) else None


@rule("transforms.crop_first", "never: DETR's crops of 384 to 600 pixels are meant for COCO", "0")
def crop_first(case: Case) -> Derived | None:
    if case["transforms.resize"] != "shortest_edge":
        return None
    return 0.0, "crops of 384 to 600 pixels are for photographs of COCO's size"


@rule("transforms.image_mean", "that of the pictures that the trunk was trained on", "")
def image_mean(case: Case) -> Derived | None:
    return None if case.statistics is None else (case.statistics[0], OF_THE_TRUNK)


@rule("transforms.image_std", "that of the pictures that the trunk was trained on", "")
def image_std(case: Case) -> Derived | None:
    return None if case.statistics is None else (case.statistics[1], OF_THE_TRUNK)


OF_THE_TRUNK = "as the trunk has seen pictures"


@rule("transforms.flip", "every other picture, but none where a class is called left or right", "0 or 0.5")
def flip(case: Case) -> Derived | None:
    sided = sided_class(case)
    return (0.0, f"{sided} would become its contrary") if sided else None


@rule(
    "transforms.vertical_flip",
    "every other picture, where pictures have no up and no class is left or right",
    "0 or 0.5",
)
def vertical_flip(case: Case) -> Derived | None:
    return (0.5, NO_UP) if can_be_turned(case) else None


@rule("transforms.rotate", "quarter turns, where pictures have no up and no class is left or right", "")
def rotate(case: Case) -> Derived | None:
    return ("quarter_turns", NO_UP) if can_be_turned(case) else None


NO_UP = "above and below look alike, in the pictures and in what is annotated"


def sided_class(case: Case) -> str | None:
    """The first class whose name tells left from right."""
    words = re.compile(r"(^|[^a-z])(left|right)($|[^a-z])")
    return next((label for label in case.labels if words.search(label.lower())), None)


def can_be_turned(case: Case) -> bool:
    """Whether pictures stay what they are when they are turned or stand on their heads."""
    return not case.traits.has_up and sided_class(case) is None


QUERIES = {
    "mask2former": "head.config.num_queries",
    "maskformer": "head.config.decoder_config.num_queries",
    "deformable_detr": "head.config.num_queries",
    "rt_detr": "head.config.num_queries",
    "rt_detr_v2": "head.config.num_queries",
    "d_fine": "head.config.num_queries",
    "deimv2": "head.config.num_queries",
    "detr": "head.config.num_queries",
    "conditional_detr": "head.config.num_queries",
}
"""Where each head says how many objects it can find."""
USUAL = {
    "deformable_detr": 300,
    "rt_detr": 300,
    "rt_detr_v2": 300,
    "d_fine": 300,
    "deimv2": 300,
    "conditional_detr": 300,
}
OTHERS = 100

CHOOSES_POSITIONS = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
"""Heads whose queries are positions of their maps, at strides 8, 16 and 32."""


def positions(height: int, width: int) -> int:
    """Of the three maps together."""
    return sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in (8, 16, 32))


@rule(
    "head.config.num_queries",
    "half as many again as the fullest picture has objects, where that is more than the head has",
    "multiples of 50; the head's own number (100 or 300) to 1500; positions of the maps for heads that choose those",
)
def num_queries(case: Case) -> Derived | None:
    usual = USUAL.get(case["head.name"], OTHERS)
    if has_label_maps(case) or case["head.name"] not in QUERIES or ROOM * case.most <= usual:
        return None
    queries = min(1500, multiple(ROOM * case.most + 25, 50))
    if case["head.name"] in CHOOSES_POSITIONS:
        queries = min(queries, positions(*case["transforms.crop_size"]))
    return queries, f"up to {case.most} objects in a picture"


@rule(
    "evaluation.max_detections",
    "as many as the fullest picture has objects, where that is more than 100",
    "100 (COCO's number) to 1500, in hundreds",
)
def max_detections(case: Case) -> Derived | None:
    if case.task not in ("object_detection", "instance_segmentation") or case.most <= 100:
        return None
    return min(1500, -(-case.most // 100) * 100), f"up to {case.most} objects in a picture"


FEW = 100


@rule(
    "backbone.freeze_trunk",
    "where there is no GPU, little to learn from or only thin things: it is faster, and better after so few steps",
    "only with pretrained weights",
)
def freeze_trunk(case: Case) -> Derived | None:
    if not is_pretrained(case):
        return None
    if case.device.is_cpu:
        return True, "a CPU makes few steps, in which a trunk forgets more than it learns"
    if case.pictures < FEW:
        return True, f"{case.pictures} pictures are too few to change the trunk by"
    if is_thin(case):
        return (
            True,
            f"of thin things its cells keep an IoU of {case.traits.kept_by_cells:.2f}; the pyramid learns them",
        )
    return None


def is_pretrained(case: Case) -> bool:
    """Whether a plain ViT's weights were given; in a backbone's checkpoint all of it has been trained, and goes on."""
    return bool(case["backbone.trunk"] or case["backbone.trunk_weights"])


@rule("head.config.hidden_size", "of UperNet: 128 on a CPU; its work grows with the square of its channels", "128")
def hidden_size(case: Case) -> Derived | None:
    if case["head.name"] != "upernet" or not case.device.is_cpu:
        return None
    return 128, "the head's 512 channels are for a GPU"


LAYERS = {"rt_detr": 3, "rt_detr_v2": 3}
"""Of the decoders of the smallest published models."""


@rule(
    "head.config.decoder_layers",
    "of RT-DETR: 3 on a CPU, as its smallest published model has, where no trained head is taken over",
    "3",
)
def decoder_layers(case: Case) -> Derived | None:
    if not case.device.is_cpu or case["head.name"] not in LAYERS or case["head.checkpoint"] is not None:
        return None
    return LAYERS[case["head.name"]], "six layers are for a GPU"
