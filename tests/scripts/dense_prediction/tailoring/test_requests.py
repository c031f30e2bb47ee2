"""What can be asked for, and how a mistake in it is answered."""

from pathlib import Path

import pytest

from dense_prediction.errors import UserError
from dense_prediction.tailoring.requests import Request, data_name, own_data_recipes


DEMO = "semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo"


def test_every_task_has_one_recipe_to_start_from() -> None:
    assert {name: base.split("/")[-1].split("_")[0] for name, base in own_data_recipes().items()} == {
        "instance_segmentation": "mask2former",
        "object_detection": "rt",
        "panoptic_segmentation": "mask2former",
        "semantic_segmentation": "upernet",
    }


@pytest.mark.parametrize("task", own_data_recipes())
def test_output_is_called_after_the_task_and_the_data(task: str, tmp_path: Path) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    request = Request(task, str(folder))
    assert request.is_task
    assert (request.recipe.name, request.recipe.task) == (f"{task}/my_pictures", task)
    assert request.recipe.output == f"outputs/{task}/my_pictures"
    assert Request(task, str(folder), ["output=elsewhere"]).recipe.output == "elsewhere"


def test_a_recipe_on_other_data_has_an_output_of_its_own(tmp_path: Path) -> None:
    assert Request(DEMO).recipe.output == f"outputs/{DEMO}"
    assert Request(DEMO, str(tmp_path / "mine.zip")).recipe.output == f"outputs/{DEMO}_mine"


def test_names_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "blood cells.v2"
    folder.mkdir()
    (folder / "data.yaml").write_text("")
    (folder / "a.ZIP").write_text("")
    monkeypatch.chdir(folder)
    assert data_name(".") == data_name(str(folder)) == data_name("data.yaml") == "blood_cells.v2"
    assert data_name("a.ZIP") == "a"
    assert data_name("org/name") == "name"
    assert data_name("/") == "data"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("object_detection",), "object_detection is a task: say on which data with --data FOLDER"),
        (("object_detecion", "d"), "there is no task 'object_detecion'; did you mean object_detection?"),
        (("object_detection", "d", ["training.stps=3"]), "unknown key 'training.stps'; did you mean training.steps"),
        (("object_detection", "d", ["data.lables=[a]"]), "unknown key 'data.lables'; did you mean data.labels"),
        (("object_detection", "d", ["data.path=e"]), "--data and data.path=... both say which data"),
        (("object_detection", "d", ["training.steps=few"]), "training.steps: got 'few'"),
        (("object_detection", "d", ["head.name=rtdetr"]), "head.name: got 'rtdetr', which is no head"),
        (("object_detection", "d", ["training"]), "expected key=value, got 'training'"),
        (("nowhere/to/be/found", "d"), "cannot read the recipe"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError) as mistake:
        Request(*arguments)
    assert str(mistake.value).startswith(message)


@pytest.mark.parametrize(
    "change", ["training.steps=1", "training.epochs=3", "training.log_every=7", "data.labels=[a, b]"]
)
def test_every_length_of_a_run_may_be_typed(change: str) -> None:
    Request("object_detection", "d", [change])


def test_another_start_of_the_backbone_replaces_the_one_of_the_task() -> None:
    def backbone(change: str) -> tuple[str | None, str | None, str | None, str | None]:
        found = Request("object_detection", "d", [change]).recipe.backbone
        return found.config, found.trunk, found.trunk_weights, found.checkpoint

    assert backbone("backbone.trunk=mine.safetensors") == ("vit-comer-s", "mine.safetensors", None, None)
    assert backbone("backbone.trunk_weights=w.safetensors") == ("vit-comer-s", None, "w.safetensors", None)
    assert backbone("backbone.checkpoint=OUT") == (None, None, None, "OUT")
