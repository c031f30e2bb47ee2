"""The evaluation of every task over a split: what the model is given, what is counted, on one process and on two."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dense_prediction import experiment as experiment_module
from dense_prediction.batches.types import PredictionOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation import measuring
from dense_prediction.experiment import Experiment
from dense_prediction.models.building import category_ids_of
from dense_prediction.models.head import Head
from dense_prediction.models.heads import find_head
from dense_prediction.models.saved_models import read_model
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.tasks import Task


PRIMARY = {
    "semantic_segmentation": "mean_iou",
    "object_detection": "box_ap",
    "instance_segmentation": "mask_ap",
    "panoptic_segmentation": "panoptic_quality",
}
SAMPLES = 5


class Model(nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, torch.Tensor]] = []

    def forward(self, **inputs: torch.Tensor) -> Any:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls.append(inputs)
        return SimpleNamespace()


def oracle(wrong: int, **fields: Any) -> Head:
    """A head that finds exactly what is annotated, but as other classes in the images with an id below `wrong`."""

    def predict(output: Any, batch: dict[str, Any], task: Task, options: PredictionOptions) -> list[dict[str, Any]]:
        assert (options.things == frozenset({1, 2, 3, 4})) == (task.name == "panoptic_segmentation")
        return [find(target, target["image_id"] < wrong) for target in batch["targets"]]

    def find(target: dict[str, Any], wrongly: bool) -> dict[str, Any]:
        found = {
            key: target[key] for key in ("semantic_map", "segment_map", "boxes", "masks", "labels") if key in target
        }
        if "labels" in target:
            found["scores"] = torch.linspace(1, 0.5, len(target["labels"]))
        key = "labels" if "labels" in target else "semantic_map"
        return found | ({key: (found[key] + 1) % 4} if wrongly else {})

    return dataclasses.replace(find_head("mask2former"), predict=predict, **fields)


@pytest.fixture
def experiment(recipe_file: Path) -> Callable[..., Experiment]:
    """On some of the drawn shapes, in small images, of a task; and with a head that need not be the recipe's."""
    small = ["transforms.crop_size=[32, 32]", "transforms.evaluation_resize=fixed"]

    def build(task: str, head: Head | None = None, *overrides: str) -> Experiment:
        changes = [f"task={task}", f"data.max_validation_samples={SAMPLES}", *small, *overrides]
        return Experiment(load_recipe(recipe_file, changes), head)

    return build


def measure(experiment: Experiment, model: nn.Module, accelerator: Any = None) -> dict[str, Any]:
    return experiment.measure(accelerator or Accelerator(cpu=True), model, experiment.validation)


@pytest.mark.parametrize("learned", PRIMARY)
def test_every_sample_is_measured_at_its_own_size(learned: str, experiment: Callable[..., Experiment]) -> None:
    model = Model().train()
    numbers = measure(experiment(learned, oracle(0)), model)
    assert numbers[PRIMARY[learned]] == 1.0
    assert model.training, "as it was before"
    assert [call.keys() for call in model.calls] == [{"pixel_values", "pixel_mask"}] * SAMPLES
    assert model.calls[0]["pixel_values"].shape == (1, 3, 32, 32)
    assert measure(experiment(learned, oracle(2)), model.eval())[PRIMARY[learned]] < 0.9
    assert not model.training


@pytest.mark.parametrize("learned", PRIMARY)
def test_two_processes_measure_every_sample_once(
    learned: str, experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An odd number of samples: none is repeated to make the shares equal."""
    built = experiment(learned, oracle(2))
    alone = measure(built, Model())
    states: list[Any] = []
    monkeypatch.setattr(measuring, "gather_object", lambda own: states.extend(own) or list(states))
    models = [Model(), Model()]
    for index, model in enumerate(models):
        process = SimpleNamespace(
            process_index=index,
            num_processes=2,
            is_main_process=index == 0,
            device=torch.device("cpu"),
            unwrap_model=lambda model: model,
            autocast=nullcontext,
        )
        together = measure(built, model, process)
    assert [len(model.calls) for model in models] == [3, 2]
    assert together == alone


def test_images_are_padded_as_head_and_recipe_need_it(experiment: Callable[..., Experiment]) -> None:
    model = Model()
    measure(experiment("object_detection", oracle(0, size_divisor=12), "transforms.size_divisor=8"), model)
    assert model.calls[0]["pixel_values"].shape == (1, 3, 48, 48)
    assert model.calls[0]["pixel_mask"].sum() == 32 * 32


def test_views_of_other_tasks_are_refused_before_the_model_runs(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(UserError, match="not for task=object_detection"):
        experiment("object_detection", oracle(0), "evaluation.flip=true")


def test_views_reach_the_model(experiment: Callable[..., Experiment]) -> None:
    class Dense(Model):
        def forward(self, **inputs: torch.Tensor) -> Any:
            super().forward(**inputs)
            return SimpleNamespace(logits=inputs["pixel_values"].mean(1, keepdim=True).repeat(1, 5, 1, 1))

    model = Dense()
    measure(experiment("semantic_segmentation", None, "evaluation.scales=[0.5, 1.0]", "evaluation.flip=true"), model)
    assert [call["pixel_values"].shape[-1] for call in model.calls] == [16, 16, 32, 32] * SAMPLES


def test_a_model_keeps_what_its_data_call_the_classes(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    built = experiment("semantic_segmentation")
    assert not hasattr(built.build_model().config, "category_ids"), "where that is their ids"
    built.data = dataclasses.replace(built.data, category_ids=[7, 3, 90, 1, 2])
    built.build_model().save_pretrained(tmp_path)
    built.processor().save_pretrained(tmp_path)
    assert category_ids_of(read_model(tmp_path, torch.device("cpu"))[0]) == [7, 3, 90, 1, 2]


def test_a_task_that_is_not_there(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(UserError, match="task=depth cannot be learnt, there are semantic_segmentation, "):
        experiment("depth")


def test_a_head_starts_from_a_trained_one(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    trained = experiment("semantic_segmentation", None, "seed=1").build_model()
    trained.save_pretrained(tmp_path)
    warm = experiment("semantic_segmentation", None, f"head.checkpoint={tmp_path}").build_model()
    assert torch.equal(warm.decode_head.classifier.weight, trained.decode_head.classifier.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("backbone.overrides.depths=[1]", "depths must be"),
        ("backbone.overrides.dephts=[1]", r"dephts: ViTCoMerConfig has no such field"),
        ("backbone.trunk_weights=nowhere.safetensors", "cannot read .*nowhere.safetensors: there is no such file"),
        ("head.config.hidden_sise=8", "hidden_sise: UperNetConfig has no such field"),
        ("head.name=detr", "head.name=detr cannot be trained for task=semantic_segmentation"),
        ("head.name=detr task=object_detection head.config.d_model=word", "head.config: .*d_model"),
        ("backbone.config=vit-comer-x", "backbone.config=vit-comer-x"),
        ("backbone.config=null backbone.checkpoint=nowhere", "backbone.checkpoint=nowhere: no config can be read"),
    ],
)
def test_what_is_wrong_of_the_model_is_said_before_the_data_are_read(
    change: str, message: str, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_module, "load_data", lambda *arguments: pytest.fail("the data were read"))
    head = [] if "head.name" not in change else ["head.config={}"]
    with pytest.raises(UserError, match=message):
        Experiment(load_recipe(recipe_file, [*head, *change.split()]))
