"""Somebody who has transformers and timm, but not our package: loads from a Hub and says what came of it.

Takes from stdin `{"hide": packages that cannot be imported, "steps": a list of steps, "output": a file}`. A step is
`{"do": the name of a function below, ...its arguments}`. What the steps return goes to the file, by `torch.save`.
"""

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

import torch


class Hiding(MetaPathFinder):
    """A finder of modules that does not find some packages."""

    def __init__(self, finder: MetaPathFinder, packages: list[str]) -> None:
        self.finder, self.packages = finder, packages

    def find_spec(self, name: str, *args: Any) -> ModuleSpec | None:
        return None if name.partition(".")[0] in self.packages else self.finder.find_spec(name, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """Every tensor of a model's output, in order."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors(value)
    elif isinstance(output, dict):
        yield from tensors(list(output.values()))


@torch.no_grad()
def outputs_of(model: torch.nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(tensors(model.eval()(torch.randn(1, 3, 64, 96, generator=generator))))


def found_by(task: str, model: Any, image_processor: Any = None, **arguments: Any) -> list[tuple[str, float | None]]:
    """Labels and scores that a pipeline finds in an image."""
    from PIL import Image
    from transformers import pipeline

    runner = pipeline(task, model=model, image_processor=image_processor, **arguments)
    options = {"threshold": 0.0} if task == "object-detection" else {"subtask": "semantic"}
    image = Image.linear_gradient("L").convert("RGB")
    return [(found["label"], found["score"]) for found in runner(image, **options)]


def load(loader: str, repository: str, save_to: str | None = None, **arguments: Any) -> dict[str, Any]:
    import transformers

    model = getattr(transformers, loader).from_pretrained(repository, **arguments)
    if save_to is not None:
        model.save_pretrained(save_to)
    backbones = [module for module in model.modules() if type(module).__name__.startswith("ViTCoMer")]
    return {"module": type(backbones[0]).__module__, "outputs": outputs_of(model)}


def attach(loader: str, repository: str, head: str, **arguments: Any) -> dict[str, Any]:
    """A head on the backbone of a repository: what the backbone in it makes of an image."""
    import transformers

    backbone = getattr(transformers, loader).from_pretrained(repository, trust_remote_code=True)
    model = backbone.attach(getattr(transformers, head), **arguments)
    module = sys.modules[type(backbone).__module__.replace("modeling_vit_comer", "heads")]
    inner = module.backbone_of(model)
    return {"module": type(inner).__module__, "outputs": outputs_of(inner), "scores": outputs_of(model)}


def describe(loader: str, repository: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    """Of a config or an image processor."""
    import transformers

    loaded = getattr(transformers, loader).from_pretrained(repository, **arguments)
    return type(loaded).__name__, loaded.to_dict()


def run_pipeline(task: str, repository: str) -> list[tuple[str, float | None]]:
    return found_by(task, repository, trust_remote_code=True)


def register(repository: str) -> None:
    """Make a repository's config that of the model type for all, as some repositories' code does by itself."""
    from transformers import AutoConfig

    AutoConfig.register("vit_comer", type(AutoConfig.from_pretrained(repository, trust_remote_code=True)))


def fail(loader: str, repository: str, **arguments: Any) -> str:
    try:
        load(loader, repository, **arguments)
    except (ImportError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


ACTIONS = {action.__name__: action for action in (load, attach, describe, run_pipeline, register, fail)}


def hide(packages: list[str]) -> None:
    """Leave the process if one of them can be imported all the same."""
    sys.meta_path[:] = [Hiding(finder, packages) for finder in sys.meta_path]
    for package in packages:
        try:
            importlib.import_module(package)
            sys.exit(f"{package} can be imported")
        except ModuleNotFoundError:
            pass


if __name__ == "__main__":
    request = json.load(sys.stdin)
    hide(request["hide"])
    results = [ACTIONS[step.pop("do")](**step) for step in request["steps"]]
    torch.save(results, request["output"])
