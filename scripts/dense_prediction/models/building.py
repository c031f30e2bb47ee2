"""From a recipe to a head's model round a backbone, and what can be asked of such a model."""

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from modeling_vit_comer import use_kernel_in_heads
from modeling_vit_comer.deformable_heads import can_switch

from ..batches.types import Task
from ..errors import UserError
from .heads.registry import HEADS, Head
from .options import HeadOptions
from .queries import refuse_small_images


def build_model(
    recipe: HeadOptions, backbone: PreTrainedModel, labels: list[str], task: Task, things: Collection[int] = ()
) -> PreTrainedModel:
    """The head with random weights round `backbone`, whose weights it takes over.

    Its config also says what it is trained for, so that a saved model knows how to predict: `task`, and the ids of
    the countable classes in `things`.

    Raises:
        UserError: the head is not for the task, or `recipe.config` names a field that the head's config has not, or
            gives it a wrong value.
    """
    head = HEADS[recipe.name]
    if task not in head.tasks:
        able = [name for name, other in HEADS.items() if task in other.tasks]
        raise UserError(f"head.name={recipe.name} cannot be trained for task={task}; use {' or '.join(able)}")
    check_fields(head.config_class, recipe.config, "head.config")
    fields = label_names(labels) | head.settings(recipe.config, backbone) | recipe.config
    try:
        config = head.config_class(backbone_config=backbone.config, **fields)
        config.task, config.things = task, sorted(things)
        model = head.model_class(config)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"head.config: {' '.join(str(error).split())}") from error
    head.initialize(model)
    model.get_submodule(head.encoder).load_state_dict(backbone.state_dict(), strict=True)
    run_on_kernel(model)
    refuse_small_images(model)
    return model


def run_on_kernel(model: PreTrainedModel) -> None:
    """Let the head's own deformable attention, where it has any, run on the kernel that the backbone runs on."""
    if any(can_switch(module) for module in model.modules()):
        use_kernel_in_heads(model)


def head_of(model: PreTrainedModel) -> Head:
    """The entry for a model's class.

    Raises:
        KeyError: the model is none of `HEADS`.
    """
    for head in HEADS.values():
        if isinstance(model, head.model_class):
            return head
    raise KeyError(type(model).__name__)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The backbone inside a head's model."""
    return model.get_submodule(head_of(model).encoder)


def task_of(model: PreTrainedModel) -> Task:
    """What a model was trained for; the first task of its head if its config does not say."""
    return getattr(model.config, "task", head_of(model).tasks[0])


def things_of(model: PreTrainedModel) -> frozenset[int]:
    """The ids of the countable classes of a model for panoptic segmentation."""
    return frozenset(getattr(model.config, "things", ()))


def label_names(labels: list[str]) -> dict[str, dict[Any, Any]]:
    """The class names as a transformers config wants them."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def check_fields(config_class: type[PreTrainedConfig], fields: dict[str, Any], key: str) -> None:
    """Refuse what a transformers config would silently keep as an attribute that nothing reads."""
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else f", it has {', '.join(known)}"
            raise UserError(f"{key}.{name}: {config_class.__name__} has no such field{hint}")
