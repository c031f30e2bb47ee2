"""The evaluation of every task over a split: what the model is given, what is counted, on one process and on two."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dense_prediction.batches.options import TransformOptions
from dense_prediction.batches.streams import EvaluationSet
from dense_prediction.batches.transforms import EvaluationTransform
from dense_prediction.batches.types import PredictionOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation import measuring as evaluation
from dense_prediction.evaluation.measuring import evaluate
from dense_prediction.models.head import Head
from dense_prediction.models.heads import find_head
from dense_prediction.recipes.schema import EvaluationOptions
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


def evaluation_set(task: str) -> tuple[EvaluationSet, dict[str, Any]]:
    data = load_data(DataOptions(path="synthetic_shapes", max_validation_samples=SAMPLES), task)
    transform = EvaluationTransform(TransformOptions(crop_size=(32, 32), evaluation_resize="fixed"))
    return EvaluationSet(data.validation, transform), {"task": task, "labels": data.labels, "things": data.things}


@pytest.mark.parametrize("task", PRIMARY)
def test_every_sample_is_measured_at_its_own_size(task: str) -> None:
    data, names = evaluation_set(task)
    model = Model().train()
    numbers = evaluate(Accelerator(cpu=True), model, oracle(0), data, **names)
    assert numbers[PRIMARY[task]] == 1.0
    assert model.training, "as it was before"
    assert [call.keys() for call in model.calls] == [{"pixel_values", "pixel_mask"}] * SAMPLES
    assert model.calls[0]["pixel_values"].shape == (1, 3, 32, 32)
    assert evaluate(Accelerator(cpu=True), model.eval(), oracle(2), data, **names)[PRIMARY[task]] < 0.9
    assert not model.training


@pytest.mark.parametrize("task", PRIMARY)
def test_two_processes_measure_every_sample_once(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An odd number of samples: none is repeated to make the shares equal."""
    data, names = evaluation_set(task)
    alone = evaluate(Accelerator(cpu=True), Model(), oracle(2), data, **names)
    states: list[Any] = []
    monkeypatch.setattr(evaluation, "gather_object", lambda own: states.extend(own) or list(states))
    models = [Model(), Model()]
    for index, model in enumerate(models):
        process = SimpleNamespace(
            process_index=index,
            num_processes=2,
            is_main_process=index == 0,
            device=torch.device("cpu"),
            unwrap_model=lambda model: model,
        )
        together = evaluate(process, model, oracle(2), data, **names)
    assert [len(model.calls) for model in models] == [3, 2]
    assert together == alone


def test_images_are_padded_as_head_and_recipe_need_it() -> None:
    data, names = evaluation_set("object_detection")
    model = Model()
    evaluate(Accelerator(cpu=True), model, oracle(0, size_divisor=12), data, **names, size_divisor=8)
    assert model.calls[0]["pixel_values"].shape == (1, 3, 48, 48)
    assert model.calls[0]["pixel_mask"].sum() == 32 * 32


def test_views_of_other_tasks_are_refused_before_the_model_runs() -> None:
    data, names = evaluation_set("object_detection")
    model = Model()
    with pytest.raises(UserError, match="not for task=object_detection"):
        evaluate(Accelerator(cpu=True), model, oracle(0), data, **names, recipe=EvaluationOptions(flip=True))
    assert not model.calls


def test_views_reach_the_model() -> None:
    data, names = evaluation_set("semantic_segmentation")

    class Dense(Model):
        def forward(self, **inputs: torch.Tensor) -> Any:
            super().forward(**inputs)
            return SimpleNamespace(logits=inputs["pixel_values"].mean(1, keepdim=True).repeat(1, 5, 1, 1))

    model = Dense()
    recipe = EvaluationOptions(scales=[0.5, 1.0], flip=True)
    evaluate(Accelerator(cpu=True), model, find_head("upernet"), data, **names, recipe=recipe)
    assert [call["pixel_values"].shape[-1] for call in model.calls] == [16, 16, 32, 32] * SAMPLES
