"""Recipes: composition, overrides, and what a mistake is answered with."""

from pathlib import Path

import pytest
import yaml

from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import dotted_fields, load_recipe
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
        ("data.labels=labels.txt", "labels.txt"),
        ("data.labels=null", None),
        ("data.labels=", None),
        ("data.path=a=b.c", "a=b.c"),
        ("data.path='12'", "12"),
        ("data.path=2024-05-01", "2024-05-01"),
        ("data.images.train=pictures", {"train": "pictures"}),
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
        ("task=segmentation", r"task: got 'segmentation'.*'semantic_segmentation', 'instance_segmentation'"),
        ("data.labels=[a", r"data.labels: cannot read the value '\[a'"),
        ("data.path=!!python/object/apply:os.getcwd []", r"data.path: cannot read the value"),
        ("data={}", r"data.path is required: .* data.path=\.\.\."),
    ],
)
def test_a_mistake_is_explained(recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe_file, [override])
    assert "\n" not in str(caught.value)


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
    assert (ROOT / recipe.backbone.config).exists()
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
    assert all(field.default.description for field in fields.values())
