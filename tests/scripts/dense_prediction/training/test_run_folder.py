"""A run removes what its manifest lists, and nothing else: whatever is in the folder, and whenever it is killed."""

import json
import shutil
from pathlib import Path

import pytest

import train
from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.runs import RECIPE
from dense_prediction.reporting.files import REPORT_FILES
from dense_prediction.training.resuming import find_checkpoint
from dense_prediction.training.run_folder import MADE, MANIFEST, check_folder, claim, clear_output, made
from scripts_in_process import last_error, run_script


SHORT = ("training.steps=1", "training.evaluate_every=1")
FOREIGN = (
    "mine.txt",
    "checkpoint-7/weights.bin",
    "checkpoints/notes.txt",
    "checkpoints/step_00000001_copy/state.json",
    "predictions/favourite.png",
    "logs/theirs.txt",
    "config.json",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    output = tmp_path_factory.mktemp("finished")
    assert run_script(train, recipe_file, f"output={output}", *SHORT) == 0
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """The folder of a finished run, with files of others."""
    folder = shutil.copytree(finished, tmp_path / "run")
    write(folder, *FOREIGN)
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["mine.txt", *MADE])
@pytest.mark.parametrize("overrides", [[], ["overwrite=true"], ["resume=auto"]], ids=str)
def test_a_folder_without_a_run_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, overrides: list[str]
) -> None:
    write(tmp_path, f"{name}/theirs" if "." not in name else name)
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"holds '{name}' and no run: give an empty folder or another .*output="):
        find_checkpoint(load_recipe(recipe_file, [f"output={tmp_path}", *overrides]))
    assert content(tmp_path) == before


def test_the_way_out_is_right(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder may hold what desktops and file systems leave."""
    write(tmp_path / "theirs", "best_model/config.json")
    write(tmp_path / "empty", ".DS_Store", "Thumbs.db", "desktop.ini")
    before = content(tmp_path)
    assert run_script(train, recipe_file, f"output={tmp_path / 'theirs'}", *SHORT, "overwrite=true") == 1
    assert "holds 'best_model' and no run" in last_error(capsys)
    assert content(tmp_path) == before
    assert run_script(train, recipe_file, f"output={tmp_path / 'empty'}", *SHORT) == 0
    assert content(tmp_path).items() >= before.items()


def test_a_file_is_no_folder(recipe_file: Path, tmp_path: Path) -> None:
    write(tmp_path, "out")
    with pytest.raises(UserError, match="output=.*out is a file"):
        find_checkpoint(load_recipe(recipe_file, [f"output={tmp_path / 'out'}"]))


def test_files_of_others_stay(output: Path, recipe_file: Path) -> None:
    """Also those in our folders, and with the names of things that this run does not make."""
    assert run_script(train, recipe_file, f"output={output}", *SHORT, "seed=3", "overwrite=true") == 0
    assert json.loads((output / "results.json").read_text())["seed"] == 3
    assert {name: data.decode() for name, data in content(output).items() if name in FOREIGN} == {
        name: name for name in FOREIGN
    }


def test_a_name_that_belongs_to_others_is_refused(output: Path) -> None:
    with pytest.raises(UserError, match="logs is not of a run, which would replace it: move it, or"):
        check_folder(output, [*MADE, "logs"])
    write(output, "last_model.previous/theirs")
    check_folder(output, MADE)  # the run's own way to replace last_model
    (output / MANIFEST).write_text('{"made": ["checkpoints"]}')
    with pytest.raises(UserError, match="best_model is not of a run"):
        check_folder(output, MADE)
    shutil.rmtree(output / "best_model")
    write(output, "best_model.previous/theirs")
    with pytest.raises(UserError, match=r"best_model\.previous is not of a run"):
        check_folder(output, ["best_model"])


def test_a_finished_run_without_its_checkpoints_is_kept(
    output: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(output / "checkpoints")
    before = content(output)
    run = [recipe_file, f"output={output}", *SHORT]
    for resume in ([], ["resume=auto"]):
        assert run_script(train, *run, *resume) == 1
        message = (
            "holds a run (results.json) and no checkpoint that this script goes on from: replace it with overwrite"
        )
        assert message in last_error(capsys)
        assert content(output) == before
    assert run_script(train, *run, "overwrite=true") == 0, "what the message advises"


@pytest.mark.parametrize("left", ["last_model", "best_model", "checkpoint-7", "checkpoints/step_00000001"])
def test_whatever_is_left_of_a_run_is_kept(finished: Path, recipe_file: Path, tmp_path: Path, left: str) -> None:
    claim(tmp_path, [*MADE, "checkpoint-7"])
    write(tmp_path, f"{left}/model.safetensors", "checkpoint-7/trainer_state.json")
    if left == "checkpoint-7":
        (tmp_path / left / "trainer_state.json").write_text('{"global_step": 7}')
    with pytest.raises(UserError, match=rf"holds a run \({left}\) and no"):
        find_checkpoint(load_recipe(recipe_file, [f"output={tmp_path}", "resume=auto"]))


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(recipe_file: Path, tmp_path: Path) -> None:
    claim(tmp_path, MADE)
    write(tmp_path, "checkpoints/partial/model.safetensors", "predictions/step_00000001.png")
    for resume in ([], ["resume=auto"]):
        assert find_checkpoint(load_recipe(recipe_file, [f"output={tmp_path}", *resume])) is None


@pytest.mark.parametrize("kept", ["checkpoints", "results.json"])
def test_a_folder_of_the_version_before_gets_a_manifest(output: Path, recipe_file: Path, kept: str) -> None:
    (output / MANIFEST).unlink()
    if kept == "checkpoints":
        (output / "results.json").unlink()
    else:
        shutil.rmtree(output / "checkpoints")
    expected = {"best_model", "last_model", "predictions", "predictions.png", kept}
    assert made(output) == expected
    claim(output, ["logs"])
    assert set(json.loads((output / MANIFEST).read_text())["made"]) == expected | {"logs"}


def test_a_folder_of_the_version_before_can_be_cleared_in_two_goes(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is killed when what it is known by has gone."""
    for name in (MANIFEST, RECIPE, *REPORT_FILES):  # which that version did not write
        (output / name).unlink()
    unlink = Path.unlink

    def die(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == "results.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(KeyboardInterrupt):
        clear_output(output)
    monkeypatch.undo()
    write(output, "results.json.partial")
    clear_output(output, MADE)
    assert set(content(output)) == {*FOREIGN, MANIFEST}
    assert made(output) == set(MADE)


def test_a_manifest_cannot_name_other_things(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path, "theirs.txt", "run/theirs.txt")
    names = ["../theirs.txt", str(tmp_path / "theirs.txt"), "theirs.txt", ".", "..", 7, None, ["best_model"]]
    (tmp_path / "run" / MANIFEST).write_text(json.dumps({"made": names}))
    clear_output(tmp_path / "run")
    assert content(tmp_path).keys() == {"theirs.txt", "run/theirs.txt", f"run/{MANIFEST}"}


def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/model.safetensors", "disk/step_00000001/state.json", "disk/theirs.txt")
    claim(tmp_path / "run", MADE)
    (tmp_path / "run" / "best_model").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    write(tmp_path, "pictures/step_00000001.png")
    (tmp_path / "run" / "predictions").symlink_to(tmp_path / "pictures")
    (tmp_path / "run" / "last_model").symlink_to(tmp_path / "gone")
    clear_output(tmp_path / "run")
    assert content(tmp_path / "elsewhere").keys() == {"model.safetensors"}
    assert content(tmp_path / "disk").keys() == {"theirs.txt"}
    assert not (tmp_path / "run" / "best_model").is_symlink()
    assert not (tmp_path / "run" / "last_model").is_symlink(), "also where it leads nowhere"
    assert (tmp_path / "run" / "predictions").is_symlink() and not content(tmp_path / "pictures")
