"""Recipes: composition, overrides, and what a mistake is answered with."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass
from torchvision import tv_tensors

from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.synthetic_shapes import SyntheticShapesOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.data.samples import Source, new_sample
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.options import FORBID_UNKNOWN, Positive, fields_of
from dense_prediction.recipes.keys import describe_keys, dotted_fields
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import EvaluationOptions
from dense_prediction.recipes.shipped import presets, recipe_names
from dense_prediction.tasks import Task
from miniature import ROOT


RECIPES = ROOT / "configuration" / "recipes"
COMMITTED = sorted(path for path in RECIPES.rglob("*.yaml") if "fragments" not in path.parts)


def write(path: Path, tree: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree))
    return path


def test_bases_merge_in_order_and_the_file_wins(tmp_path: Path, recipe_file: Path) -> None:
    write(tmp_path / "fragments" / "slow.yaml", {"training": {"steps": 100, "batch_size": 3}, "seed": 1})
    write(tmp_path / "fragments" / "fast.yaml", {"training": {"steps": 200}})
    bases = [str(recipe_file), "../fragments/slow.yaml", "../fragments/fast.yaml"]
    path = write(tmp_path / "recipes" / "mine.yaml", {"base": bases, "seed": 7})
    recipe = load_recipe(path)
    assert (recipe.training.steps, recipe.training.batch_size, recipe.seed) == (200, 3, 7)
    assert recipe.training.checkpoint_every == 2, "keys that no later file sets must survive"


def test_the_path_names_the_experiment(tmp_path: Path, recipe_file: Path) -> None:
    path = write(tmp_path / "recipes" / "task" / "dataset" / "head_model.yaml", {"base": [str(recipe_file)]})
    recipe = load_recipe(path)
    assert (recipe.name, recipe.output) == ("task/dataset/head_model", "outputs/task/dataset/head_model")
    assert load_recipe(recipe_file).name == recipe_file.stem
    with pytest.raises(UserError, match="name is not to be set"):
        load_recipe(path, ["name=other"])


def test_overrides_have_the_types_of_their_fields(recipe_file: Path) -> None:
    overrides = [
        "training.steps=5",
        "optimization.learning_rate=1e-4",
        "transforms.crop_size=[32, 48]",
        "optimization.max_grad_norm=null",
        "head.config.pool_scales=[1, 2]",
    ]
    recipe = load_recipe(recipe_file, overrides)
    assert recipe.training.steps == 5
    assert recipe.optimization.learning_rate == 1e-4
    assert recipe.transforms.crop_size == (32, 48)
    assert recipe.optimization.max_grad_norm is None
    assert recipe.head.config["pool_scales"] == [1, 2]
    assert recipe.head.config["hidden_size"] == 16


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.labels=[sky, 'traffic light', \"no\"]", ["sky", "traffic light", "no"]),
        ("data.labels=[no, yes, on]", ["no", "yes", "on"]),
        ("data.labels=null", None),
        ("data.labels=", None),
        ("data.path=a=b.c", "a=b.c"),
        ("data.path='12'", "12"),
        ("data.path=2024-05-01", "2024-05-01"),
        ("training.mixed_precision=no", "no"),
        ("overwrite=true", True),
        ("overwrite=yes", True),
        ("head.config={}", {}),
        ("head.config.dropout=1e-1", {"hidden_size": 16, "auxiliary_channels": 8, "dropout": 0.1}),
        ("backbone.overrides.depths=[2, 2]", {"depths": [2, 2]}),
        ("backbone.overrides.trunk_config.model_args.x=null", {"trunk_config": {"model_args": {"x": None}}}),
        ("optimization.ema_decay=.999", 0.999),
        ("training.samples_per_step=16", 16),
    ],
)
def test_values_from_the_shell(recipe_file: Path, override: str, value: object) -> None:
    recipe = load_recipe(recipe_file, [override])
    for name in override.partition("=")[0].split(".")[:2]:
        recipe = getattr(recipe, name)
    assert recipe == value
    assert type(recipe) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stpes=5", r"unknown key 'training.stpes'; did you mean training.steps"),
        ("learning_rte=5", r"unknown key 'learning_rte'; did you mean optimization.learning_rate"),
        ("steps=5", r"did you mean .*training.steps"),
        ("training.steps=many", r"training.steps: got 'many' \(str\).*valid integer"),
        ("training.steps=0", r"training.steps: got 0 \(int\).*greater than 0"),
        ("training.mixed_precision=half", r"got 'half' \(str\).*'no', 'bf16' or 'fp16'"),
        ("transforms.crop_size=64", r"transforms.crop_size: got 64 \(int\)"),
        ("transforms.scale=[2, 1]", r"scale=\[2.0, 1.0\] must be \[smallest, largest\]"),
        ("training.log_every=4", r"checkpoint_every=2 is no multiple of log_every=4"),
        ("optimization.warmup_steps=6", r"warmup_steps=6 must be below training.steps=6"),
        ("training.steps", r"expected key=value, got 'training.steps'"),
        ("seed.x=1", r"seed.x: got|seed: got"),
        ("data.iamges.train=x", r"unknown key 'data.iamges'; did you mean data.images"),
        ("head.confg.dropout=0", r"unknown key 'head.confg'; did you mean head.config"),
        ("training.epochs=3", r"training: set one of steps and epochs \(the other null\), got 6 and 3"),
        ("training.steps=null", r"set one of steps and epochs .* got None and None"),
        ("optimization.schedule=multi_step", r"schedule=multi_step, milestones=\[\]: multi_step alone needs them"),
        ("optimization.milestones=[0.5]", r"schedule=poly, milestones=\[0.5\]: multi_step alone"),
        (
            "optimization={learning_rate: 1, schedule: multi_step, milestones: [1/2, 0.25]}",
            r"milestones=\[0.5, 0.25\] must grow",
        ),
        (
            "optimization.milestones=[8/12, 11]",
            r"milestones.1: got 11, expected a share .* epoch 8 of 12 ends at 8/12",
        ),
        ("optimization.milestones=[12/12]", r"milestones.0: got '12/12', expected a share of the run between 0 and 1"),
        ("optimization.milestones=[8/0]", r"milestones.0: got '8/0', expected a share"),
        ("optimization.milestones=[late]", r"milestones.0: got 'late', expected a share"),
        ("optimization.ema_decay=1", r"optimization.ema_decay: got 1 \(int\).*less than 1"),
        ("data.labels=[a", r"data.labels: cannot read the value '\[a'"),
        ("data.path=!!python/object/apply:os.getcwd []", r"data.path: cannot read the value"),
        ("data={}", r"data.path is required: .* data.path=\.\.\."),
    ],
)
def test_a_mistake_is_explained(recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe_file, [override])
    assert "\n" not in str(caught.value)


FORMATS = ("data.path=x", "data.format=coco", "data.images.train=pictures")


def test_a_format_has_keys_of_its_own(recipe_file: Path) -> None:
    data = load_recipe(recipe_file, FORMATS).data
    assert (type(data), data.images, data.max_validation_samples) == (CocoOptions, {"train": "pictures"}, 2)
    assert type(load_recipe(recipe_file, ["data.path=x"]).data) is DatasetsOptions
    assert type(load_recipe(recipe_file).data) is SyntheticShapesOptions
    assert load_recipe(recipe_file, ["data={format: synthetic_shapes}"]).data.path == "synthetic_shapes"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.path=x", "data.annotations.train=a.json"],
            "^unknown key 'data.annotations' for data.format=datasets; "
            "data.format=coco or coco_panoptic or voc has it$",
        ),
        ([*FORMATS, "data.streaming=true"], "'data.streaming' for data.format=coco; data.format=datasets has it$"),
        (["data.box_format=xyxy"], "'data.box_format' for data.format=synthetic_shapes; data.format=datasets has it$"),
        ([*FORMATS, "data.imgaes.train=x"], "unknown key 'data.imgaes'; did you mean data.images"),
        (["data.format=cocoa", "data.path=x"], "data: format='cocoa': expected one of coco, coco_panoptic, datasets"),
        (["data.format=[coco]", "data.path=x"], r"data: format=\['coco'\]: expected one of coco"),
        (["data.format=synthetic_shapes", "data.path=x"], "path=x: format=synthetic_shapes draws its pictures"),
        (["data=5"], r"^data: got 5 \(int\)"),
    ],
)
def test_a_key_of_another_format(recipe_file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(recipe_file, overrides)


def test_another_format_replaces_what_a_recipe_says_of_its_own() -> None:
    """As README shows it: its places of the masks say nothing of a dataset that has none."""
    recipe = "semantic_segmentation/ade20k/upernet_vit-comer-s"
    data = load_recipe(recipe, ["data.path=org/dataset", "data.format=datasets"]).data
    assert (data.format, data.reduce_labels, data.workers, len(data.labels)) == ("datasets", True, 4, 150)
    with pytest.raises(UserError, match="'data.masks' for data.format=datasets"):
        load_recipe(recipe, ["data.format=datasets", "data.masks.train=elsewhere"])


def test_a_format_is_one_class(recipe_file: Path) -> None:
    """With nothing to be told to anybody else."""

    @dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
    class NoiseOptions(DataOptions):
        tasks = ("semantic_segmentation",)

        format: Literal["noise"] = "noise"
        loudness: Positive = Field(3, description="how loud it is")

        def open(self, task: Task) -> Source:
            image = Image.fromarray(np.full((8, 6, 3), self.loudness, dtype=np.uint8))
            sample = new_sample(image, "noise", 0) | {"semantic_map": np.zeros((8, 6), dtype=np.int64)}
            return Source(["quiet", "loud"], frozenset(), lambda key: [sample] * 3)

    recipe = load_recipe(recipe_file, ["data={path: x, format: noise, loudness: 5}"])
    data = load_data(recipe.data, TASKS[recipe.task])
    assert (len(data.train), data.labels) == (3, ["quiet", "loud"])
    sample = data.train[0]
    assert type(sample["semantic_map"]) is tv_tensors.Mask
    assert sample["image"].unique().tolist() == [5]
    with pytest.raises(UserError, match="format=noise has no samples for task=object_detection; .*coco.* have"):
        load_data(recipe.data, TASKS["object_detection"])
    assert dict(dotted_fields())["data.loudness"].description == "how loud it is"
    with pytest.raises(UserError, match="'data.loudness' for data.format=synthetic_shapes; data.format=noise has it"):
        load_recipe(recipe_file, ["data.loudness=4"])


def test_label_files(tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a recipe names is beside it, or beside that of its bases which names it; one that is typed is here."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "names.txt").write_text(f"{name}\n light \n\n")
    base = write(tmp_path / "there" / "base.yaml", {"base": [str(recipe_file)], "data": {"labels": "names.txt"}})
    path = write(tmp_path / "mine.yaml", {"base": [str(base)]})
    monkeypatch.chdir(tmp_path / "here")
    assert load_recipe(path).data.labels == ["there", "light"]
    assert load_recipe(path, ["data.labels=names.txt"]).data.labels == ["here", "light"]
    with pytest.raises(UserError, match=r"data.labels=absent.txt: cannot read .*/here/absent.txt"):
        load_recipe(path, ["data.labels=absent.txt"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \t\n\n"])
def test_label_files_of_any_system(recipe_file: Path, tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "names.txt").write_bytes(f"Käse{end}traffic light{end}".encode(encoding))
    path = write(tmp_path / "mine.yaml", {"base": [str(recipe_file)], "data": {"labels": "names.txt"}})
    assert load_recipe(path).data.labels == ["Käse", "traffic light"]


NAME = "semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo"


@pytest.mark.parametrize("form", [NAME, f"{NAME}.yaml", f"configuration/recipes/{NAME}.yaml", Path(NAME)], ids=str)
def test_a_recipe_of_the_package_is_found_by_its_name(
    form: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(form) == load_recipe(RECIPES / f"{NAME}.yaml")
    own = write(tmp_path / form, yaml.safe_load((RECIPES / f"{NAME}.yaml").read_text()) | {"base": [], "seed": 5})
    write(own, yaml.safe_load(own.read_text()) | {"head": {"name": "upernet"}})
    assert load_recipe(form).seed == 5, "a file that is there comes first"


def test_the_names_of_recipes() -> None:
    assert recipe_names() == sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in COMMITTED)
    with pytest.raises(UserError, match=f"No such file; did you mean {NAME}?"):
        load_recipe("semantic_segmentation/synthetic_shapes/upernet_vit-comer-dmo")
    with pytest.raises(UserError, match=f"did you mean {NAME}?"):
        load_recipe("upernet_vit-comer-demo")
    with pytest.raises(UserError, match="those of the package are called as semantic_segmentation/"):
        load_recipe("qqq")


def test_what_a_mistake_waits_for() -> None:
    """Recipes are read, and their mistakes answered, without the libraries that take seconds to import."""
    heavy = ("torch", "torchvision", "transformers", "datasets", "accelerate", "timm")
    code = (
        "import sys\n"
        "from dense_prediction.errors import UserError\n"
        "from dense_prediction.recipes.loading import load_recipe\n"
        "from dense_prediction.recipes.keys import describe_keys\n"
        f"load_recipe({NAME!r})\n"
        "describe_keys()\n"
        f"try: load_recipe({NAME!r}, ['training.stpes=3'])\n"
        "except UserError as error: print(error)\n"
        f"print(sorted(sys.modules.keys() & set({heavy})))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    mistake, imported = ended.stdout.splitlines()
    assert mistake.startswith("unknown key 'training.stpes'; did you mean training.steps")
    assert imported == "[]"


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the recipe .*absent.yaml: No such file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("data: [1, 2")
    with pytest.raises(UserError, match="is not YAML"):
        load_recipe(tmp_path / "broken.yaml")
    loop = write(tmp_path / "loop.yaml", {"base": ["loop.yaml"]})
    with pytest.raises(UserError, match="is its own base"):
        load_recipe(loop)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.relative_to(RECIPES).with_suffix("").as_posix()
    assert recipe.backbone.config in presets().preset_names()
    assert isinstance(recipe.data.labels, list | None), "no path of this machine goes into results.json"
    assert recipe.task == path.relative_to(RECIPES).parts[0]
    head, _, backbone = path.stem.partition("_vit")
    assert recipe.head.name == head
    assert backbone
    assert recipe.backbone.freeze_trunk == backbone.endswith("_frozen")
    baseline = recipe.backbone.overrides.get("model_type") == "simple_feature_pyramid"
    assert baseline == backbone.startswith("-pyramid-")
    for weights in ("dinov2", "beitv2"):
        assert weights not in (recipe.backbone.trunk or "") or weights in backbone.split("_")
    assert path.read_text().startswith("# "), "a recipe says what it is"
    assert len(path.read_text().splitlines()) <= 40


def test_every_key_is_described() -> None:
    fields = dict(dotted_fields())
    assert {"data.path", "training.steps", "resume", "head.config"} <= set(fields)
    assert all(field.description for field in fields.values())
    keys = [line.split()[0] for line in describe_keys().splitlines()]
    assert keys == list(dict.fromkeys(keys)) == list(fields)
    formats = "of coco_panoptic, folders, instance_masks"
    assert f"data.masks                            {formats}: folder of the masks" in describe_keys()
    assert "data.path                             folder of the data" in describe_keys()


PUBLIC = ("ade20k", "camvid", "coco", "coco_mini", "coco_stuff164k")
"""The fragments that describe data sets."""
OWN = [path for path in COMMITTED if path.parent.name == "custom"]


def bases_of(path: Path) -> set[Path]:
    """A recipe's file and all that it stands on."""
    tree = yaml.safe_load(path.read_text())
    return {path}.union(*(bases_of((path.parent / base).resolve()) for base in tree.get("base", [])))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.parts[-3])
def test_recipes_for_own_data_say_nothing_of_public_data(path: Path) -> None:
    """Neither by what they stand on, nor by themselves."""
    assert not {base.stem for base in bases_of(path)} & set(PUBLIC)
    data = load_recipe(path).data
    places = {"path", "format", "images", "masks", "annotations", "labels"}
    for name, field in fields_of(type(data)).items():
        if name not in places:
            assert getattr(data, name) == field.get_default(call_default_factory=True), name
    assert data.labels in (None, ["background", "foreground"])
    assert load_recipe(path).evaluation == EvaluationOptions()


def test_there_are_recipes_for_own_data() -> None:
    assert {path.parts[-3] for path in OWN} >= {"object_detection", "instance_segmentation", "semantic_segmentation"}


def test_data_are_described_by_their_own_fragments_alone() -> None:
    described = {
        path.stem for path in (RECIPES / "fragments").glob("*.yaml") if "data" in yaml.safe_load(path.read_text())
    }
    assert described == set(PUBLIC)


RT_DETR = "object_detection/coco/rt_detr_vit-comer-s_1x"
ELSEWHERE = ["data.path=mine", "data.annotations={train: t.json, validation: v.json}"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.path=/data/coco"], ("skip", "stored")),
        (["data.annotations.test=test.json"], ("skip", "stored")),
        (ELSEWHERE, ("refuse", "auto")),
        (["data.images.train=pictures"], ("refuse", "auto")),
        (["data.path=x", "data.format=datasets"], ("refuse", "auto")),
        ([*ELSEWHERE, "data.bad_samples=skip"], ("skip", "auto")),
        ([*ELSEWHERE, "data.exif_orientation=stored"], ("refuse", "stored")),
        (["data={path: x, format: coco, bad_samples: skip}"], ("skip", "auto")),
    ],
    ids=range(8),
)
def test_what_a_recipe_says_of_its_own_data_holds_for_them_alone(
    overrides: list[str], expected: tuple[str, str], tmp_path: Path
) -> None:
    """On the command line, and in a file that stands on the recipe."""
    data = load_recipe(RT_DETR, overrides).data
    assert (data.bad_samples, data.exif_orientation) == expected
    tree: dict[str, Any] = {"base": [str(RECIPES / f"{RT_DETR}.yaml")], "data": {}}
    for override in overrides:
        keys, value = override.split("=", 1)
        if keys == "data" or "datasets" in value:
            return
        place = tree
        for key in keys.split(".")[:-1]:
            place = place.setdefault(key, {})
        place[keys.split(".")[-1]] = yaml.safe_load(value)
    data = load_recipe(write(tmp_path / "mine.yaml", tree)).data
    assert (data.bad_samples, data.exif_orientation) == expected
