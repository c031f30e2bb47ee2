"""The gradient and the loss of the first step of both trainers, in float64 and without anything that is random.

As a script, on several processes: `step_gradients.py OUTPUT BATCH_SIZE ACCUMULATION BACKBONE HEAD/TASK/OBJECTS ...`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from accelerate import PartialState
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel, Trainer

from dense_prediction.batches.streams import TrainingStream
from dense_prediction.experiment import Experiment
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.training.huggingface.building import build_trainer
from dense_prediction.training.loop import TrainingRun
from miniature_heads import FIELDS, draw_targets


SIDE = 64
NOISE = 0.3
"""Of the weights; so large that the matches of DEIMv2 are not in proportion to the objects."""
Step = dict[str, torch.Tensor]


class Stopped(Exception):
    """Ends a run after its first step."""


def example(task: str, objects: int, position: int) -> dict[str, Any]:
    """A picture of noise with so many objects; where it is a map of classes, so many quarters have a label."""
    generator = torch.Generator().manual_seed(position)
    target = draw_targets(task, SIDE, SIDE, empty=False)
    for name in target:
        if name == "semantic_map":
            target[name][: SIDE - SIDE * objects // 4] = 255
        elif name == "segment_map":
            target[name][target[name] >= objects] = -1
        else:
            target[name] = target[name][:objects]
    image = torch.randn(3, SIDE, SIDE, generator=generator)
    return target | {"pixel_values": image, "original_size": (SIDE, SIDE)}


def doubled(value: Any) -> Any:
    match value:
        case torch.Tensor() if value.is_floating_point():
            return value.double()
        case dict():
            return {name: doubled(each) for name, each in value.items()}
        case list():
            return [doubled(each) for each in value]
    return value


def even_points(*size: int, device: Any = None) -> torch.Tensor:
    """In place of random numbers: the same in each row."""
    row = torch.arange(1, 1 + int(torch.tensor(size[1:]).prod())) * 0.6180339887498949 % 1
    return row.reshape(1, *size[1:]).repeat(size[0], *[1] * len(size[1:]))


def without_chance(model: PreTrainedModel) -> PreTrainedModel:
    """In float64, without dropout, with batch norms that stay as they are, and no two queries that see the same.

    Of a new model's queries some do, and rounding would decide which of them an object is matched with.
    """
    for module in model.modules():
        if isinstance(module, (_BatchNorm, nn.Dropout)):
            module.eval()
            module.train = lambda mode=True, module=module: module
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    generator = torch.Generator().manual_seed(0)
    for parameter in model.double().parameters():
        parameter.data += NOISE * torch.randn(parameter.shape, generator=generator)
    return model


@contextmanager
def exact(task: str, objects: list[int]) -> Iterator[None]:
    """While it lasts, runs see so many objects in the picture at each position, in float64."""
    build_model, loss_inputs = Experiment.build_model, Experiment.loss_inputs
    patches = [
        mock.patch.object(Experiment, "build_model", lambda self: without_chance(build_model(self))),
        mock.patch.object(Experiment, "loss_inputs", lambda self, batch: doubled(loss_inputs(self, batch))),
        mock.patch.object(
            TrainingStream, "__getitem__", lambda self, position: example(task, objects[position], position)
        ),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),  # with which losses of float32 mix
        mock.patch.object(torch, "rand", even_points),
    ]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        for patch in patches:
            patch.stop()


def recipe_of(head: str, task: str, backbone: Path, output: Path, batch_size: int, accumulation: int) -> Recipe:
    config = FIELDS[head] | ({"num_denoising": 0} if "num_denoising" in FIELDS[head] else {})
    tree = {
        "task": task,
        "output": str(output),
        "data": {"path": "synthetic_shapes", "max_validation_samples": 2},
        "transforms": {"base_size": [SIDE, SIDE], "crop_size": [SIDE, SIDE]},
        "backbone": {"config": str(backbone), "overrides": {"drop_path_rate": 0.0}},
        "head": {"name": head, "config": config},
        "optimization": {"learning_rate": 1.0e-3, "max_grad_norm": None},
        "training": {
            "steps": 1,
            "batch_size": batch_size,
            "gradient_accumulation": accumulation,
            "evaluate_every": 1,
            "checkpoint_every": 1,
            "log_every": 1,
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    file = output.parent / f"{output.name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    return load_recipe(file)


def first_step(recipe: Recipe, objects: list[int], trainer: str = "loop") -> Step:
    """The gradients by the parameters' names, and the `loss` that is logged."""
    found: Step = {}

    def keep(optimizer: torch.optim.Optimizer, closure: Any = None) -> None:
        assert not found, "one step only"
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found.update({str(i): each.grad.clone() for i, each in enumerate(parameters) if each.grad is not None})

    def look_back(run: TrainingRun) -> None:
        found["loss"] = run.accelerator.reduce(torch.stack(run.losses).mean(), "mean")
        raise Stopped

    def log(run: Trainer, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        found["loss"] = run.accelerator.reduce(loss.clone(), "mean")
        raise Stopped

    with (
        exact(recipe.task, objects),
        mock.patch.object(torch.optim.AdamW, "step", keep),
        mock.patch.object(TrainingRun, "_look_back", look_back),
        mock.patch.object(Trainer, "_maybe_log_save_evaluate", log),
    ):
        try:
            TrainingRun(recipe).train() if trainer == "loop" else build_trainer(recipe, {}).train()
        except Stopped:
            return found
    raise AssertionError("it has not come to its first step")


def main() -> None:
    torch.set_num_threads(1)
    folder, batch_size, accumulation, backbone = Path(sys.argv[1]), *map(int, sys.argv[2:4]), Path(sys.argv[4])
    for name in sys.argv[5:]:
        head, task, objects = name.split("/")
        output = folder / f"{head}_{task}_{objects}"
        recipe = recipe_of(head, task, backbone, output, batch_size, accumulation)
        found = first_step(recipe, [int(number) for number in objects])
        if PartialState().is_main_process:
            torch.save(found, folder / f"{head}_{task}_{objects}.pt")


if __name__ == "__main__":
    main()
