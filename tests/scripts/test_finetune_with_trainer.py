"""finetune_with_trainer.py: the losses of train.py, exact resume, flags and recipes, the Hub, and what mistakes do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.trainer
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2.functional import to_pil_image
from transformers import TrainerState
from transformers.trainer_utils import get_last_checkpoint

import finetune_with_trainer
from dense_prediction.batches.types import PredictionOptions
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS, find_task
from dense_prediction.experiment import Experiment
from dense_prediction.models.building import encoder_of
from dense_prediction.models.saved_models import read_model
from dense_prediction.prediction.trained_model import predict_image
from dense_prediction.recipes.keys import dotted_fields
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training.huggingface.arguments import (
    DEFAULTS,
    FIXED,
    KEYS,
    parse_command_line,
    training_arguments,
)
from dense_prediction.training.huggingface.building import build_trainer
from dense_prediction.training.huggingface.checkpoints import find_checkpoint
from dense_prediction.training.huggingface.trainer import RecipeTrainer
from dense_prediction.training.loop import TrainingRun
from dense_prediction.training.optimization import build_optimizer
from dense_prediction.training.resuming import find_checkpoint as find_checkpoint_of_train
from dense_prediction.training.run_folder import claim
from miniature import ROOT
from miniature_heads import FIELDS
from scripts_in_process import HEAD_OF_TASK, last_error, run_script


SEMANTIC, DETECTION = "semantic_segmentation", "object_detection"
QUIET = ["--disable_tqdm", "true"]


def for_task(task: str) -> list[str]:
    """Overrides of the tiny recipe."""
    head = HEAD_OF_TASK[task]
    return [f"task={task}", f"head.name={head}", f"head.config={json.dumps(FIELDS[head])}"]


def finetune(*arguments: object) -> int:
    return run_script(finetune_with_trainer, *arguments, *QUIET)


def results_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def trainer_for(recipe_file: Path, output: Path, *arguments: object) -> RecipeTrainer:
    line = parse_command_line("", [str(part) for part in (recipe_file, f"output={output}", *arguments)])
    return build_trainer(load_recipe(line.recipe, line.overrides), line.flags)


@pytest.mark.parametrize("learned", [SEMANTIC, DETECTION])
def test_both_trainers_have_the_same_losses_and_measures(learned: str, recipe_file: Path, tmp_path: Path) -> None:
    """With drop path, accumulation, clipping, warm-up and layer decay."""
    changes = ["training.steps=10", "training.evaluate_every=10", "training.gradient_accumulation=2"]
    changes += [
        "optimization.schedule=cosine",
        "optimization.warmup_steps=3",
        "optimization.layer_decay=0.8",
        *for_task(learned),
    ]
    run = TrainingRun(load_recipe(recipe_file, [*changes, f"output={tmp_path / 'ours'}"]))
    run.train()
    assert finetune(recipe_file, *changes, f"output={tmp_path / 'trainer'}") == 0
    theirs = results_of(tmp_path / "trainer")
    for expected, actual in zip(run.state.curve, theirs["curve"], strict=True):
        assert actual == pytest.approx(expected, rel=1e-6)
    assert len(theirs["curve"]) == 10
    assert theirs["best"] == {"step": 10, "metric": run.metric, run.metric: pytest.approx(run.state.best_score)}
    assert theirs["samples_per_step"] == run.state.samples_per_step


def test_max_steps_keeps_the_milestones_of_epochs(recipe_file: Path, tmp_path: Path) -> None:
    in_epochs = tmp_path / "in_epochs.yaml"
    in_epochs.write_text(
        f"base: [{recipe_file}]\n"
        "optimization: {schedule: multi_step, milestones: [8/12, 11/12]}\n"
        "training: {steps: null, epochs: 12}\n"
    )
    theirs = trainer_for(in_epochs, tmp_path / "theirs", "--max_steps", "24")
    theirs.create_optimizer_and_scheduler(theirs.args.max_steps)
    changes = ["training.steps=24", "training.epochs=null", f"output={tmp_path / 'ours'}"]
    ours = TrainingRun(load_recipe(in_epochs, changes))
    for scheduler in (theirs.lr_scheduler, ours.scheduler.scheduler):
        expected = [1e-3] * 16 + [1e-4] * 6 + [1e-5] * 2
        assert [rate(step) * 1e-3 for rate in scheduler.lr_lambdas[:1] for step in range(24)] == pytest.approx(
            expected
        )


SAMPLES = ["training.batch_size=4", "training.samples_per_step=16"]


@pytest.mark.parametrize("builds", [TrainingRun, lambda recipe: build_trainer(recipe, {})], ids=["ours", "theirs"])
def test_a_step_of_other_samples_is_warned_of(
    recipe_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, builds: Any
) -> None:
    builds(load_recipe(recipe_file, [*SAMPLES, f"output={tmp_path / 'few'}"]))
    (warning,) = [record for record in caplog.records if "samples" in record.message]
    assert "a step sees 4 samples" in warning.message
    assert "meant for 16: set training.gradient_accumulation=4, or" in warning.message
    caplog.clear()
    builds(load_recipe(recipe_file, [*SAMPLES, "training.gradient_accumulation=4", f"output={tmp_path / 'right'}"]))
    assert not [record for record in caplog.records if "samples" in record.message]


# Resume


class Killed(Exception):
    """Stands for the end of a process."""


RUNS = {
    "semantic": for_task(SEMANTIC),
    # Whose names in a saved model are not those in the model.
    "detection with an average": [*for_task(DETECTION), "optimization.ema_decay=0.9"],
}
STEPS = ["training.steps=4", "training.evaluate_every=3", "training.checkpoint_every=2", "--save_total_limit", "9"]


@pytest.fixture(scope="module", params=RUNS)
def changes(request: pytest.FixtureRequest) -> list[str]:
    return [*RUNS[request.param], *STEPS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, changes: list[str]) -> Path:
    """The output folder of an unbroken run."""
    output = tmp_path_factory.mktemp("unbroken")
    assert finetune(recipe_file, f"output={output}", *changes) == 0
    return output


def assert_same_weights(folder: Path, other: Path) -> None:
    expected, actual = (load_file(place / "model.safetensors") for place in (folder, other))
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


def tensors_of(content: Any) -> list[torch.Tensor]:
    if isinstance(content, dict):
        return [tensor for key in content for tensor in tensors_of(content[key])]
    return [content] if isinstance(content, torch.Tensor) else []


def test_a_resumed_run_equals_an_unbroken_one(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ended while it wrote its last checkpoint, and has not been evaluated before."""
    complete = TrainerState.save_to_json

    def save_and_die(state: TrainerState, path: str) -> None:
        if state.global_step == 3:
            Path(path).write_text('{"global_')
            raise Killed
        complete(state, path)

    monkeypatch.setattr(TrainerState, "save_to_json", save_and_die)
    with pytest.raises(Killed):
        trainer_for(recipe_file, tmp_path, *changes).train()
    monkeypatch.undo()
    assert Path(get_last_checkpoint(str(tmp_path))).name == "checkpoint-3", "which is not whole"

    assert finetune(recipe_file, f"output={tmp_path}", *changes, "--resume_from_checkpoint", "true") == 0
    assert_same_weights(finished, tmp_path)
    files = ["optimizer.pt", "scheduler.pt", *(["training_weights.pt"] if "average" in str(changes) else [])]
    for name in files:
        both = [torch.load(place / "checkpoint-4" / name, weights_only=True) for place in (finished, tmp_path)]
        expected, actual = map(tensors_of, both)
        assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True)), name
    for numbers in ("curve", "evaluations", "best"):
        assert results_of(tmp_path)[numbers] == results_of(finished)[numbers], numbers


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "training_weights.pt"])
def test_a_checkpoint_cannot_run_code(
    finished: Path,
    recipe_file: Path,
    changes: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    checkpoint = shutil.copytree(finished / "checkpoint-2", tmp_path / "evil")
    if not (checkpoint / name).is_file():
        pytest.skip("the run keeps no average")
    torch.save(Payload(tmp_path / "ran"), checkpoint / name)
    assert finetune(recipe_file, f"output={tmp_path / 'run'}", *changes, f"resume={checkpoint}") == 1
    assert "cannot resume" in last_error(capsys)
    assert not (tmp_path / "ran").exists()


class Payload:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_weights_that_do_not_fit_are_refused(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainer would leave the others as they are."""
    checkpoint = shutil.copytree(finished / "checkpoint-2", tmp_path / "checkpoint-2")
    weights = load_file(checkpoint / "model.safetensors")
    name = next(name for name in weights if name.endswith("level_embed"))
    weights["misnamed"] = weights.pop(name)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    assert finetune(recipe_file, f"output={tmp_path / 'run'}", *changes, f"resume={checkpoint}") == 1
    message = last_error(capsys)
    assert message.startswith(f"{checkpoint} has not the weights of the recipe's model")
    assert "level_embed" in message
    assert "misnamed" in message


# What a run leaves


def test_the_folder_holds_the_best_model(finished: Path, recipe_file: Path, changes: list[str]) -> None:
    """Loaded as predict.py does it, its predictions have the numbers that the run reported."""
    recipe = load_recipe(recipe_file, [change for change in changes if "=" in change])
    data = load_data(recipe.data, find_task(recipe.task))
    model, processor = read_model(finished, torch.device("cpu"))
    metric = TASKS[recipe.task].metric(data.labels, data.things)
    for index in range(len(data.validation)):
        sample = data.validation[index]
        prediction = predict_image(model, processor, to_pil_image(sample["image"]), PredictionOptions())
        metric.update(prediction, sample | {"original_size": sample["image"].shape[-2:]})
    reported = json.loads((finished / "eval_results.json").read_text())
    assert reported[f"eval_{metric.primary}"] == pytest.approx(metric.compute()[metric.primary], abs=2e-3)
    best = results_of(finished)["best"]
    assert best[metric.primary] == reported[f"eval_{metric.primary}"]
    assert_same_weights(finished, finished / f"checkpoint-{best['step']}")
    assert (finished / "predictions.png").is_file()
    assert [numbers["step"] for numbers in results_of(finished)["evaluations"]] == [3, 4]


def test_while_training_the_average_is_saved(recipe_file: Path, tmp_path: Path) -> None:
    trainer = trainer_for(recipe_file, tmp_path, "optimization.ema_decay=0.9")
    with torch.no_grad():
        for parameter in trainer.measured_model.parameters():
            parameter.add_(1)
    trainer.save_model(str(tmp_path / "checkpoint-1"))
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in trainer.measured_model.state_dict().items())
    assert not any(torch.equal(value, saved[name]) for name, value in trainer.model.named_parameters())


def test_without_a_best_model_the_last_average_is_the_result(recipe_file: Path, tmp_path: Path) -> None:
    arguments = ["optimization.ema_decay=0.9", "--load_best_model_at_end", "false", "--save_strategy", "no"]
    trainer = trainer_for(recipe_file, tmp_path, "training.steps=2", *arguments)
    before = trainer.measured_model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    last: dict[str, torch.Tensor] = {}

    def keep(average: torch.nn.Module) -> None:
        last.update({name: value.clone() for name, value in average.module.state_dict().items()})

    follow = trainer.average.average.update_parameters
    trainer.average.average.update_parameters = lambda model: (follow(model), keep(trainer.average.average))
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in last.items())
    assert all(torch.equal(value, last[name]) for name, value in trainer.model.state_dict().items())
    assert not list(tmp_path.glob("checkpoint-*"))


def test_early_stopping_and_trackers_come_from_the_recipe(recipe_file: Path, tmp_path: Path) -> None:
    """A random detector that does not learn is as bad each time; resumed, it is not given more patience."""
    still = [*for_task(DETECTION), "optimization.learning_rate=1e-12", "training.evaluate_every=1"]
    arguments = [recipe_file, f"output={tmp_path}", *still, "training.early_stopping=2", "--save_total_limit", "9"]
    assert finetune(*arguments, "training.trackers=[tensorboard]") == 0
    assert [numbers["step"] for numbers in results_of(tmp_path)["evaluations"]] == [1, 2, 3]
    assert list(tmp_path.glob("runs/*/events.*"))
    shutil.rmtree(tmp_path / "checkpoint-3")
    assert finetune(*arguments, "resume=auto") == 0
    assert [numbers["step"] for numbers in results_of(tmp_path)["evaluations"]] == [1, 2, 3]


RESTORING = ["--restore_callback_states_from_checkpoint", "true"]


@pytest.mark.parametrize(
    ("before", "after", "evaluated", "flags"),
    [("1", "3", 4, []), ("1", "3", 4, RESTORING), ("1", "null", 6, []), ("null", "3", 4, []), ("3", "2", 4, [])],
)
def test_patience_that_has_changed_counts_from_the_best_model(
    recipe_file: Path, tmp_path: Path, before: str, after: str, evaluated: int, flags: list[str]
) -> None:
    """A detector that does not learn was best at step 1, is resumed at step 3 or where it was stopped."""
    still = [*for_task(DETECTION), "optimization.learning_rate=1e-12", "training.evaluate_every=1"]
    arguments = [recipe_file, f"output={tmp_path}", *still, "--save_total_limit", "9"]
    assert finetune(*arguments, f"training.early_stopping={before}") == 0
    for step in (4, 5, 6):
        shutil.rmtree(tmp_path / f"checkpoint-{step}", ignore_errors=True)
    assert finetune(*arguments, f"training.early_stopping={after}", "resume=auto", *flags) == 0
    steps = [numbers["step"] for numbers in results_of(tmp_path)["evaluations"]]
    assert steps == list(range(1, evaluated + 1))


def test_a_metric_that_measures_nothing_ends_the_run(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Experiment, "measure", lambda *_: {"mean_iou": None, "pixel_accuracy": 0.0})
    with pytest.raises(UserError, match="mean_iou cannot be measured: none of 2 samples"):
        trainer_for(recipe_file, tmp_path).evaluate()


# The traps of Trainer


def test_accumulation_averages_the_loss_once(recipe_file: Path, dataset_folder: Path, tmp_path: Path) -> None:
    """Four times the same image, in one batch or in two, has one loss and one gradient, which float64 can tell."""
    same = [f"data.path={dataset_folder}", "data.labels=[black, white]", "transforms.base_size=[40, 56]"]
    same += ["transforms.crop_size=[40, 56]", "transforms.scale=[1, 1]", "transforms.flip=0"]
    same += ["transforms.photometric=false", "backbone.overrides.drop_path_rate=0.0", "training.steps=1"]
    losses, moments = [], []
    for batches in (1, 2):
        sizes = [f"training.batch_size={4 // batches}", f"training.gradient_accumulation={batches}"]
        trainer = trainer_for(recipe_file, tmp_path / str(batches), *same, *sizes, "--save_strategy", "no")
        trainer.model.double()
        trainer.train()
        losses.append(trainer.run_state().curve[0]["loss"])
        moments.append(torch.cat([state["exp_avg"].flatten() for state in trainer.optimizer.state.values()]))
    assert losses[0] == pytest.approx(losses[1])
    assert (moments[0] - moments[1]).norm() < 1e-3 * moments[0].norm()


@pytest.mark.parametrize("optimizer", [[], ["--optim", "sgd"]])
def test_the_groups_of_parameters_are_the_recipes(recipe_file: Path, tmp_path: Path, optimizer: list[str]) -> None:
    changes = ["optimization.layer_decay=0.5", "optimization.weight_decay=0.1", "backbone.freeze_trunk=true"]
    trainer = trainer_for(recipe_file, tmp_path, *changes[: None if not optimizer else 2], *optimizer)
    expected = build_optimizer(trainer.model, trainer.recipe.optimization).param_groups
    actual = trainer.create_optimizer().param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD if optimizer else torch.optim.AdamW)
    for group, other in zip(expected, actual, strict=True):
        assert (group["lr"], group["weight_decay"]) == (other["lr"], other["weight_decay"])
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in other["params"]]


def test_activation_checkpointing_reaches_the_backbone(recipe_file: Path, tmp_path: Path) -> None:
    """Trainer's own way is refused by UperNet."""
    trainer = trainer_for(recipe_file, tmp_path, "training.steps=1", "--gradient_checkpointing")
    modules = encoder_of(trainer.model).modules()
    assert any(getattr(module, "gradient_checkpointing", False) for module in modules)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("learned", [pytest.param(SEMANTIC, marks=pytest.mark.slow), DETECTION])
def test_two_processes_have_the_losses_of_one(learned: str, recipe_file: Path, tmp_path: Path) -> None:
    """With parts of the backbone that the detector leaves unused, and activation checkpointing."""
    common = [recipe_file, "training.steps=2", "training.gradient_checkpointing=true", *for_task(learned)]
    common += ["backbone.overrides.drop_path_rate=0.0"]  # of which each process draws its own
    # Adam's first steps would make large differences of the rounding errors in gradients of nearly 0.
    common += ["optimization.learning_rate=1e-5"]
    assert finetune(*common, "training.batch_size=4", f"output={tmp_path / 'alone'}") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    together = ["training.batch_size=2", f"output={tmp_path / 'together'}", "--use_cpu", "true", *QUIET]
    command = [str(part) for part in [*launch, finetune_with_trainer.__file__, *common, *together]]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert ended.returncode == 0, ended.stderr
    expected, actual = (results_of(tmp_path / name) for name in ("alone", "together"))
    assert (expected["processes"], actual["processes"]) == (1, 2)
    for alone, shared in zip(expected["curve"], actual["curve"], strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)


# Flags


FLAGS = {
    "--output_dir=out": ("output", "out"),
    "--seed=3": ("seed", 3),
    "--max_steps=9": ("training.steps", 9),
    "--num_train_epochs=2": ("training.epochs", 2),
    "--per_device_train_batch_size=5": ("training.batch_size", 5),
    "--gradient-accumulation-steps=5": ("training.gradient_accumulation", 5),
    "--bf16": ("training.mixed_precision", "bf16"),
    "--fp16": ("training.mixed_precision", "fp16"),
    "--activation_checkpointing=true": ("training.gradient_checkpointing", True),
    "--gradient_checkpointing=true": ("training.gradient_checkpointing", True),
    "--logging_steps=2": ("training.log_every", 2),
    "--eval_steps=5": ("training.evaluate_every", 5),
    "--save_steps=4": ("training.checkpoint_every", 4),
    "--learning_rate=1e-05": ("optimization.learning_rate", 1e-5),
    "--weight_decay=0.5": ("optimization.weight_decay", 0.5),
    "--max_grad_norm=0": ("optimization.max_grad_norm", None),
    "--warmup_steps=2": ("optimization.warmup_steps", 2),
    "--dataloader_num_workers=2": ("data.workers", 2),
    "--report_to=tensorboard": ("training.trackers", ["tensorboard"]),
    "--report_to=none": ("training.trackers", []),
    "--resume_from_checkpoint=True": ("resume", "auto"),
    "--resume_from_checkpoint=some/checkpoint-2": ("resume", "some/checkpoint-2"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_changes_the_recipe_and_comes_back_from_it(recipe_file: Path, flag: str) -> None:
    line = parse_command_line("", [str(recipe_file), "data.train_split=validation", flag])
    recipe = load_recipe(line.recipe, line.overrides)
    key, expected = FLAGS[flag]
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    assert (value, type(value)) == (expected, type(expected))
    assert recipe.data.train_split == "validation"

    name = flag.split("=")[0].removeprefix("--").replace("-", "_")
    if name in ("max_steps", "num_train_epochs", "resume_from_checkpoint", "fp16") or "checkpointing" in name:
        return  # of these Trainer is told later, or by other means
    arguments = training_arguments(recipe, line.flags)
    translated = {"report_to": expected, "bf16": True, "max_grad_norm": 0.0}
    assert getattr(arguments, name) == translated.get(name, expected)


def test_every_flag_in_a_table_exists(recipe_file: Path) -> None:
    assert {flag.split("=")[0].removeprefix("--").replace("-", "_") for flag in FLAGS} == set(KEYS)
    assert set(KEYS.values()) <= {key for key, _ in dotted_fields()}
    assert not KEYS.keys() & (FIXED | DEFAULTS).keys()
    transformers.TrainingArguments(**DEFAULTS)


def test_other_flags_reach_trainer(recipe_file: Path, tmp_path: Path) -> None:
    flags = ["--save_total_limit", "7", "--adam_beta2", "0.9", "--lr_scheduler_type", "constant", "--eval_delay", "2"]
    trainer = trainer_for(recipe_file, tmp_path, *flags, "--metric_for_best_model", "pixel_accuracy")
    assert (trainer.most_checkpoints, trainer.args.eval_delay) == (7, 2)
    assert trainer.args.metric_for_best_model == "pixel_accuracy"
    assert trainer.create_optimizer().param_groups[0]["betas"] == (0.9, 0.9)
    schedule = trainer.create_scheduler(6)
    trainer.optimizer.step()
    schedule.step()
    assert schedule.get_last_lr()[0] == 1e-3, "the flag's, since the recipe's has fallen by now"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lerning_rate", "1"], "unrecognized arguments: --lerning_rate 1"),
        (["--learning_rate", "big"], "argument --learning_rate.*invalid float value: 'big'"),
        (["--learning_rate", "-1"], "optimization.learning_rate: got -1.0"),
        (["training.stpes=3"], "unknown key 'training.stpes'; did you mean training.steps"),
        (["training.steps=3", "--max_steps", "3"], "--max_steps and another argument both set training.steps"),
        (["--fp16", "--bf16"], "both set training.mixed_precision"),
        (["--train_sampling_strategy", "random"], "only sequential: the order of the data follows from seed"),
        (["--eval_strategy", "epoch"], "count steps with eval_strategy=steps"),
        (["--metric_for_best_model", "loss"], "--metric_for_best_model=loss is not measured, choose mean_iou"),
        (["--report_to", "telepathy"], "Trainer cannot start: telepathy is not supported"),
        (["--eval_strategy", "sometimes"], "argument --eval_strategy.*invalid choice: 'sometimes'"),
        (["--torch_empty_cache_steps", "0"], "the flags of Trainer are wrong: .*must be an integer bigger than 0"),
        (["--optim", "lomo"], "--optim=lomo: You need to install `lomo_optim`"),
        (["--do_predict"], "--do_predict needs data.test_split"),
        (["resume=absent"], "resume=absent is no whole checkpoint"),
        (["optimization.learning_rate=1e30", "optimization.max_grad_norm=null"], r"the loss is \w+ at step \d: lower"),
    ],
)
def test_a_mistake_ends_in_one_line(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert finetune(recipe_file, f"output={tmp_path}", *arguments) == 1
    assert re.search(message, last_error(capsys))


def test_another_run_is_not_overwritten(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(finished, tmp_path / "run")
    assert finetune(recipe_file, f"output={output}", *changes) == 1
    assert "holds a run (checkpoint-4): continue it with resume=auto" in last_error(capsys)
    assert finetune(recipe_file, f"output={output}", *changes, "resume=auto", "--weight_decay", "0.3") == 1
    assert "another recipe: optimization.weight_decay=0.3 (was 0.01)" in last_error(capsys)
    assert results_of(output) == results_of(finished)
    trainer_for(recipe_file, output, *changes, "overwrite=true")
    assert not list(output.glob("checkpoint-*"))


def test_a_run_goes_on_in_another_folder(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new one; one that holds another run is refused unless that is given up."""
    checkpoint = shutil.copytree(finished / "checkpoint-2", tmp_path / "before" / "checkpoint-2")
    output = tmp_path / "after"
    resumed = [recipe_file, f"output={output}", *changes, f"resume={checkpoint}"]
    assert finetune(*resumed) == 0
    assert_same_weights(finished, output)

    shutil.copytree(checkpoint, output / "checkpoint-9")
    claim(output, ["checkpoint-9"])
    before = sorted(output.rglob("*"))
    assert finetune(*resumed) == 1
    assert re.search(r"holds a run \(checkpoint-9\), and resume=.*checkpoint-2 is not in it", last_error(capsys))
    assert sorted(output.rglob("*")) == before

    assert finetune(*resumed, "overwrite=true") == 0
    assert_same_weights(finished, output)
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint-2"]


def test_foreign_checkpoints_stay(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the limit nor a new start removes them; one that the run would write into is refused at once."""
    run = [recipe_file, f"output={tmp_path}", "training.steps=4", "training.evaluate_every=2", "overwrite=true"]
    claim(tmp_path, [])
    for name in ("checkpoint-1", "checkpoint-3", "checkpoint-mine", "checkpoint-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs").touch()
        os.utime(tmp_path / name, (0, 0))
    for _ in range(2):
        assert finetune(*run, "training.checkpoint_every=2", "--save_total_limit", "1") == 0
        assert len(list(tmp_path.glob("checkpoint-*/theirs"))) == 4
        names = {folder.name for folder in tmp_path.glob("checkpoint-*")}
        assert len(names) == 5
        assert names & {"checkpoint-2", "checkpoint-4"}
    before = sorted(tmp_path.rglob("*"))
    assert finetune(*run, "training.checkpoint_every=3") == 1
    assert "checkpoint-3 is not of a run, which would replace it: move it" in last_error(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_run_without_its_checkpoints_is_kept(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    for resume in ([], ["resume=auto"]):
        assert finetune(recipe_file, f"output={output}", *changes, *resume) == 1
        assert "holds a run (results.json) and no checkpoint that this script goes on from: " in last_error(capsys)
    assert results_of(output) == results_of(finished)


def test_a_run_of_the_other_script_is_kept(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither goes on from a checkpoint of the other."""
    output = shutil.copytree(finished, tmp_path / "trainer", ignore=shutil.ignore_patterns("results.json", "model.*"))
    recipe = load_recipe(recipe_file, [f"output={output}", "resume=auto"])
    with pytest.raises(UserError, match=r"holds a run \(checkpoint-\d\) and no checkpoint that this script goes on"):
        find_checkpoint_of_train(recipe)
    claim(tmp_path / "train", ["checkpoints"])
    shutil.copytree(finished / "checkpoint-4", tmp_path / "train" / "checkpoints" / "step_00000004")
    for resume in ([], ["resume=auto"]):
        assert finetune(recipe_file, f"output={tmp_path / 'train'}", *changes, *resume) == 1
        assert "(checkpoints/step_00000004) and no checkpoint that this script goes on from" in last_error(capsys)


@pytest.mark.parametrize("damaged", ["trainer_state.json", "state.json"])
def test_a_power_cut_leaves_the_checkpoint_before(
    finished: Path, recipe_file: Path, changes: list[str], tmp_path: Path, damaged: str
) -> None:
    for step in (2, 3):
        shutil.copytree(finished / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    shutil.copytree(finished / "checkpoint-4", tmp_path / "checkpoint-4.previous")
    recipe = load_recipe(recipe_file, [f"output={tmp_path}", "resume=auto"])
    assert find_checkpoint(recipe) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-3" / damaged).write_text("")
    assert find_checkpoint(recipe) == tmp_path / "checkpoint-2"


# The Hub


class Hub:
    """In place of the Hub's API: what was asked of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.created: list[str] = []
        self.uploads: list[dict[str, Any]] = []

    def create_repo(self, name: str, **settings: Any) -> SimpleNamespace:
        self.created.append(name)
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, **settings: Any) -> None:
        files = {path.name for path in Path(settings["folder_path"]).iterdir()}
        self.uploads.append(settings | {"files": files})
        if self.error is not None:
            raise self.error


PUSH = ["training.steps=1", "--push_to_hub", "--hub_model_id", "me/shapes", "--hub_strategy", "end"]


def test_the_result_is_pushed_once_with_a_card(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    assert finetune(recipe_file, f"output={tmp_path}", *PUSH) == 0
    assert hub.created == ["me/shapes"]
    (upload,) = hub.uploads
    assert upload["repo_id"] == "me/shapes"
    assert upload["folder_path"] == str(tmp_path)
    assert upload["files"] >= {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert upload["files"] >= {"modeling_vit_comer.py", "configuration_heads.py"}, "it must load without our package"
    assert "auto_map" in json.loads((tmp_path / "config.json").read_text())
    assert results_of(tmp_path)["recipe"]["output"] == tmp_path.name, "what was uploaded names no folder of ours"
    card = (tmp_path / "README.md").read_text()
    for text in ("- vit-comer", "- semantic-segmentation", "synthetic_shapes"):
        assert text in card


def test_a_failed_push_says_where_the_model_is(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: Hub(error=ConnectionError("no route")))
    assert finetune(recipe_file, f"output={tmp_path}", *PUSH) == 1
    assert last_error(capsys) == f"the model is saved in {tmp_path}, but not pushed: no route"
    read_model(tmp_path, torch.device("cpu"))
