"""`recipe.yaml`: what a run goes by, as a person reads it and as it is read again."""

import dataclasses
from pathlib import Path

import pytest

from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.recipe_file import read_settings, write_recipe
from dense_prediction.recipes.settings import Setting
from dense_prediction.recipes.shipped import recipe_names
from dense_prediction.recipes.yaml_1_2 import dump_value


DEMO = "semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo"
STRANGE = [
    "1e-4",
    "no",
    "null",
    "2024-05-01",
    "a: b # c",
    "two\nlines",
    "  blanks  ",
    "0x10",
    "Ä",
    "'",
    '"',
    "~",
    "- a",
]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_was_written_is_the_same(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["seed=3", "optimization.learning_rate=2.5e-05", "resume=auto", "overwrite=true"])
    write_recipe(tmp_path, recipe)
    started_anew = dataclasses.replace(recipe, resume=None, overwrite=False)
    assert load_recipe(tmp_path / "recipe.yaml") == started_anew
    assert load_recipe(tmp_path) == dataclasses.replace(started_anew, output=str(tmp_path))


def test_names_that_look_like_something_else(tmp_path: Path) -> None:
    recipe = load_recipe(DEMO)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, labels=STRANGE))
    write_recipe(tmp_path, recipe)
    assert load_recipe(tmp_path / "recipe.yaml").data.labels == STRANGE
    assert all("\n" not in dump_value(word) for word in STRANGE)


def test_reasons_stand_beside_their_values_and_are_found_again(tmp_path: Path) -> None:
    settings = [
        Setting("training.steps", 1200, "164 pictures, 60 times: each"),
        Setting("transforms.crop_size", [96, 96], "a tenth are  smaller"),
        Setting("head.config.hidden_size", 16, "a CPU"),
        Setting("seed", 99, "was typed otherwise"),
    ]
    changes = ["training.steps=1200", "transforms.crop_size=[96, 96]", "head.config={hidden_size: 16}", "seed=1"]
    write_recipe(tmp_path, load_recipe(DEMO, changes), settings)
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert "  steps: 1200  # 164 pictures, 60 times: each\n" in text
    found = read_settings(tmp_path)
    assert [(each.key, each.value) for each in found] == [
        ("transforms.crop_size", [96, 96]),
        ("head.config.hidden_size", 16),
        ("training.steps", 1200),
    ]
    assert found[0].reason == "a tenth are smaller"
    assert read_settings(tmp_path / "nowhere") == []
