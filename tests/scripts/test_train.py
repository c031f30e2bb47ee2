"""train.py and predict.py as a user runs them, exact resume, and what a mistake ends in."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import predict
import pytest
import torch
import train
from accelerate.state import AcceleratorState, GradientState
from miniature import HEADS, ROOT
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation, UperNetForSemanticSegmentation

from dense_prediction import command_line
from dense_prediction.backbones import build_backbone
from dense_prediction.data import IGNORE_INDEX
from dense_prediction.errors import UserError
from dense_prediction.heads import semantic_map
from dense_prediction.metrics import confusion_matrix, mean_iou
from dense_prediction.prediction import load_model, predict_map
from dense_prediction.recipe_loading import load_recipe
from dense_prediction.recipes import BackboneRecipe


MODEL_CLASSES = {"upernet": UperNetForSemanticSegmentation, "mask2former": Mask2FormerForUniversalSegmentation}


def run_script(script: Any, *arguments: object) -> int:
    """`python scripts/SCRIPT.py ARGUMENTS` inside this process; returns the exit code."""
    before, sys.argv = sys.argv, [f"{script.__name__}.py", *map(str, arguments)]
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        with pytest.raises(SystemExit) as ended:
            command_line.run(script.main)
    finally:
        sys.argv = before
    return ended.value.code


def results_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module", params=HEADS)
def head_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """The output folder of an unbroken run."""
    output = tmp_path_factory.mktemp("unbroken")
    assert run_script(train, recipe_file, f"output={output}", "training.gradient_accumulation=2") == 0
    return output


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def broken(tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The output folder of the same run, ended while it wrote the checkpoint of step 4."""
    complete = train.save_checkpoint

    def save_and_die(accelerator: Any, recipe: Any, state: Any) -> Path:
        if state.step == 4:
            (tmp_path / "checkpoints" / "partial").mkdir()
            raise Killed
        return complete(accelerator, recipe, state)

    monkeypatch.setattr(train, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        train.TrainingRun(load_recipe(recipe_file, [f"output={tmp_path}", "training.gradient_accumulation=2"])).train()
    monkeypatch.undo()
    return tmp_path


def test_a_resumed_run_equals_an_unbroken_one(finished: Path, broken: Path, recipe_file: Path) -> None:
    arguments = [recipe_file, f"output={broken}", "training.gradient_accumulation=2", "data.workers=1"]
    assert run_script(train, *arguments, "resume=auto") == 0
    expected, actual = results_of(finished), results_of(broken)
    for numbers in ("curve", "evaluations", "best_step", "best_mean_iou"):
        assert actual[numbers] == expected[numbers], numbers
    last = "checkpoints/step_00000006"
    weights, others = (load_file(output / last / "model.safetensors") for output in (finished, broken))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    optimizers = [torch.load(output / last / "optimizer.bin", weights_only=True) for output in (finished, broken)]
    moments = [[value for state in o["state"].values() for value in state.values()] for o in optimizers]
    assert len(moments[0]) == len(moments[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert len(list((broken / "checkpoints").iterdir())) == 1, "older checkpoints must go"


def test_results_tell_the_whole_run(finished: Path) -> None:
    results = results_of(finished)
    assert [point["step"] for point in results["curve"]] == [1, 2, 3, 4, 5, 6]
    assert [point["learning_rate"] for point in results["curve"]] == pytest.approx(
        [1e-3 * (6 - i) / 6 for i in range(6)]
    )
    assert [numbers["step"] for numbers in results["evaluations"]] == [6]
    assert set(results["evaluations"][0]["class_iou"]) == {"background", "circle", "square", "triangle", "star"}
    assert results["seconds"] > 0
    assert results["device"]
    assert torch.__version__.startswith(results["versions"]["torch"])
    assert Image.open(finished / "predictions.png").width > 300


def test_the_best_model_is_the_trained_one(finished: Path, head_name: str) -> None:
    """Loaded by transformers alone, it has the logits of the weights in the checkpoint of the same step."""
    weights = load_file(finished / "checkpoints/step_00000006/model.safetensors")
    model_class = MODEL_CLASSES[head_name]
    model = model_class.from_pretrained(finished / "best_model").eval()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    again = model_class(model.config).eval()
    again.load_state_dict(weights)
    image = torch.randn(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = model(pixel_values=image), again(pixel_values=image)
    key = "logits" if head_name == "upernet" else "masks_queries_logits"
    torch.testing.assert_close(outputs[0][key], outputs[1][key], rtol=1e-5, atol=1e-6)
    assert model.config.id2label[4] == "star"
    assert AutoImageProcessor.from_pretrained(finished / "best_model").do_resize is False


def test_predictions_have_the_mean_iou_that_the_run_reported(finished: Path, recipe_file: Path) -> None:
    validation = train.load_data(load_recipe(recipe_file).data).validation
    model, processor = load_model(finished / "best_model", torch.device("cpu"))
    confusion = torch.zeros(5, 5, dtype=torch.long)
    for index in range(len(validation)):
        image, mask = validation[index]
        found = predict_map(model, processor, train.to_pil_image(image))
        confusion += confusion_matrix(torch.from_numpy(found), mask, 5)
    assert mean_iou(confusion) == pytest.approx(results_of(finished)["best_mean_iou"], abs=2e-3)


def test_void_never_becomes_a_class(head_name: str) -> None:
    labels = torch.tensor([[[0, IGNORE_INDEX], [2, 2]], [[IGNORE_INDEX, 1], [1, 1]]])
    targets = train.HEADS[head_name].targets(labels)
    if head_name == "upernet":
        assert torch.equal(targets["labels"], labels)
        return
    assert [ids.tolist() for ids in targets["class_labels"]] == [[0, 2], [1]]
    assert targets["mask_labels"][0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [1, 1]]]
    assert targets["mask_labels"][1].tolist() == [[[0, 1], [1, 1]]]


def test_query_scores_equal_the_processor_where_it_does_not_distort(finished: Path, head_name: str) -> None:
    if head_name != "mask2former":
        pytest.skip("only Mask2Former has queries")
    model, processor = load_model(finished / "best_model", torch.device("cpu"))
    with torch.no_grad():
        output = model(pixel_values=torch.randn(1, 3, 64, 64))
    output.masks_queries_logits = torch.randn(1, 8, 384, 384)
    output.class_queries_logits = torch.randn(1, 8, 6)
    expected = processor.post_process_semantic_segmentation(output, target_sizes=[(100, 150)])[0]
    actual = semantic_map(train.HEADS[head_name].scores(output), (100, 150))[0]
    assert torch.equal(actual, expected)


def test_predict_writes_an_overlay_beside_each_image(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (37, 61, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    untouched = (tmp_path / "a.png").read_bytes()
    for _ in range(2):  # the overlays of the first time are no images of the second
        assert run_script(predict, finished / "best_model", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.overlay.png", "a.png", "b.jpg", "b.overlay.png"]
    assert (tmp_path / "a.png").read_bytes() == untouched
    overlay = Image.open(tmp_path / "a.overlay.png")
    assert overlay.width == 61
    assert overlay.height > 37, "a legend stands below"
    assert str(tmp_path / "a.overlay.png") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.png", None, "there is no image or folder"),
        ("broken.png", b"\x89PNG nothing", "cannot read .*broken.png as an image"),
    ],
)
def test_predict_explains_a_bad_image(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run_script(predict, finished / "best_model", tmp_path / name) == 1
    assert_one_line(capsys, message)
    assert run_script(predict, tmp_path, finished / "predictions.png") == 1
    assert_one_line(capsys, "is no model folder: it has no config.json")


def assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(f"^error: .*{message}", line), line


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"holds a run \(step_00000006\): continue it with resume=auto"),
        (["resume=auto", "training.batch_size=1"], r"another recipe: training.batch_size=1 \(was 2\)"),
        (["resume=./absent"], "resume=./absent is no checkpoint"),
        (["overwrite=true", "head.config.hiden_size=8"], "UperNetConfig has no such field; did you mean hidden_size"),
        (["overwrite=true", "head.config.hidden_size=big"], "head.config: .*hidden_size"),
        (
            ["overwrite=true", "backbone.config=absent.json"],
            "backbone.config: cannot read .*absent.json: No such file",
        ),
        (["overwrite=true", "backbone.overrides.depths=[1, 2]"], "backbone's config is wrong: .*depths"),
        (["overwrite=true", "backbone.trunk_weights=absent.st"], "trunk_weights: cannot read .*absent.st"),
        (["overwrite=true", "backbone.checkpoint=absent"], "set one of backbone.config .* and backbone.checkpoint"),
        (["--bad"], "unrecognized arguments: --bad"),
    ],
)
def test_a_mistake_ends_in_one_line(
    finished: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    before = results_of(finished)
    arguments = [f"output={finished}", "training.gradient_accumulation=2", *overrides]
    assert run_script(train, recipe_file, *arguments) == 1
    assert_one_line(capsys, message)
    assert results_of(finished) == before
    assert (finished / "best_model" / "config.json").is_file(), "a run that never started must not delete another"


class Payload:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "scheduler.bin"])
def test_a_checkpoint_cannot_run_code(
    finished: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    checkpoint = shutil.copytree(finished / "checkpoints/step_00000006", tmp_path / "evil")
    torch.save(Payload(tmp_path / "ran"), checkpoint / name)
    arguments = [f"output={tmp_path / 'run'}", "training.gradient_accumulation=2", f"resume={checkpoint}"]
    assert run_script(train, recipe_file, *arguments) == 1
    assert_one_line(capsys, "cannot restore")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
def test_accumulation_averages_the_loss_once(recipe_file: Path, dataset_folder: Path, tmp_path: Path) -> None:
    """Twice the same batch must give the loss and the gradient of that batch once."""
    sample = [f"data.path={dataset_folder}", "data.labels=[black, white]", "transforms.base_size=[40, 56]"]
    still = [
        "transforms.crop_size=[40, 56]",
        "transforms.scale=[1, 1]",
        "transforms.flip=0",
        "transforms.photometric=false",
    ]
    plain = [
        "backbone.overrides.drop_path_rate=0.0",
        "optimization.max_grad_norm=null",
        "head.config.use_auxiliary_head=false",
    ]
    one_step = ["training.steps=1", "training.checkpoint_every=1", "training.evaluate_every=1"]
    moments, losses = [], []
    for passes in (1, 2):
        output = tmp_path / str(passes)
        accumulate = [f"output={output}", f"training.gradient_accumulation={passes}"]
        assert run_script(train, recipe_file, *sample, *still, *plain, *one_step, *accumulate) == 0
        optimizer = torch.load(output / "checkpoints/step_00000001/optimizer.bin", weights_only=True)
        moments.append([state["exp_avg"] for state in optimizer["state"].values()])
        losses.append(results_of(output)["curve"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1])
    for once, twice in zip(*moments, strict=True):
        torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
def test_a_loss_that_is_no_number_ends_with_advice(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explosive = ["optimization.learning_rate=1e30", "optimization.max_grad_norm=null", "data.max_validation_samples=1"]
    assert run_script(train, recipe_file, f"output={tmp_path}", *explosive) == 1
    assert_one_line(capsys, r"the loss is \w+ at step \d: lower optimization.learning_rate")


def test_trunk_weights_and_checkpoints_reach_the_model(backbone_file: Path, tmp_path: Path) -> None:
    fields = {"config": str(backbone_file)}
    source = build_backbone(BackboneRecipe(**fields))
    timm_names = {
        re.sub(r"^layers\.(\d+)\.block\.", r"blocks.\1.", name).removeprefix("embeddings."): value
        for name, value in source.trunk.state_dict().items()
    }
    save_file(timm_names, tmp_path / "trunk.safetensors")
    loaded = build_backbone(BackboneRecipe(**fields, trunk_weights=str(tmp_path / "trunk.safetensors")))
    expected = source.trunk.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.trunk.state_dict().items())

    source.save_pretrained(tmp_path / "backbone")
    again = build_backbone(BackboneRecipe(checkpoint=str(tmp_path / "backbone"), overrides={"drop_path_rate": 0.1}))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.config.drop_path_rate == 0.1

    del timm_names["pos_embed"]
    save_file(timm_names, tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match="does not fit the trunk of the config: .*pos_embed"):
        build_backbone(BackboneRecipe(**fields, trunk_weights=str(tmp_path / "trunk.safetensors")))


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
def test_checkpointed_activations_and_frozen_trunk(recipe_file: Path, tmp_path: Path) -> None:
    """Both are seen by the backbone inside the head, and the frozen trunk comes out as it went in."""
    overrides = ["training.gradient_checkpointing=true", "backbone.freeze_trunk=true", f"output={tmp_path}"]
    run = train.TrainingRun(load_recipe(recipe_file, overrides))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    checkpointed = [
        module for module in run.model.backbone.modules() if getattr(module, "gradient_checkpointing", False)
    ]
    assert checkpointed
    run.train()
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if ".trunk." in name]


@pytest.mark.parametrize("head_name", ["upernet"], indirect=True)
def test_the_command_line_reports_a_mistake_in_one_line_and_exits_1(recipe_file: Path) -> None:
    """The real command, in its own process."""
    command = [sys.executable, ROOT / "scripts" / "train.py", recipe_file, "training.stpes=3"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "unknown key 'training.stpes'; did you mean training.steps" in ended.stderr
