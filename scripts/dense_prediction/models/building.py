"""From a recipe to a head's model round a backbone, and what can be asked of such a model."""

import dataclasses
import difflib
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from modeling_vit_comer import use_kernel_in_heads
from modeling_vit_comer.deformable_heads import can_switch
from modeling_vit_comer.heads import attach_head

from ..data.loading import Data
from ..errors import UserError
from ..tasks import Task
from .heads import all_heads, find_head, head_of
from .options import HeadOptions


def build_model(
    recipe: HeadOptions,
    backbone: PreTrainedModel,
    labels: list[str],
    task: Task,
    things: Collection[int] = (),
    category_ids: Sequence[int] | None = None,
) -> PreTrainedModel:
    """The head with random weights round a copy of `backbone`, ready to run.

    Its config also says what it is trained for, so that a saved model knows how to predict: `task`, the ids of the
    countable classes in `things`, and what its data call each class in `category_ids`.

    Raises:
        UserError: the head is not for the task, or `recipe.config` names a field that the head's config has not, or
            gives it a wrong value.
    """
    head = find_head(recipe.name)
    if task.name not in head.tasks:
        able = [name for name, other in all_heads().items() if task.name in other.tasks]
        raise UserError(f"head.name={recipe.name} cannot be trained for task={task.name}; use {' or '.join(able)}")
    _check_head_fields(head.config_class, recipe.config)
    fields = label_names(labels) | recipe.config
    stages = cast(list[str], backbone.out_features)
    try:
        model = attach_head(backbone, head.model_class, entry=head.entry, out_features=stages, **fields)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"head.config: {' '.join(str(error).split())}") from error
    model.config.task, model.config.things = task.name, sorted(things)
    if category_ids is not None:
        model.config.category_ids = list(category_ids)
    head.initialize(model)
    make_ready(model)
    return model


def make_ready(model: PreTrainedModel) -> None:
    """Let the deformable attention of the head, where it has any, run on the kernel that the backbone runs on."""
    if any(can_switch(module) for module in model.modules()):
        use_kernel_in_heads(model)
    head_of(model).prepare(model)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The backbone inside a head's model."""
    return cast(PreTrainedModel, model.get_submodule(head_of(model).entry.backbone))


def queries_of(model: PreTrainedModel) -> tuple[str, int] | None:
    """How many objects a model can find in a picture, and the field of the head's config that says it, if one does."""
    config: Any = model.config
    if getattr(config, "two_stage", False):
        return "two_stage_num_proposals", config.two_stage_num_proposals
    if (queries := getattr(config, "num_queries", None)) is not None:
        return "num_queries", queries
    queries = getattr(getattr(config, "decoder_config", None), "num_queries", None)
    return None if queries is None else ("decoder_config.num_queries", queries)


def task_of(model: PreTrainedModel) -> str:
    """The task that a model was trained for; the first one of its head if its config does not say."""
    return getattr(model.config, "task", head_of(model).tasks[0])


def things_of(model: PreTrainedModel) -> frozenset[int]:
    """The ids of the countable classes of a model for panoptic segmentation."""
    return frozenset(getattr(model.config, "things", ()))


def category_ids_of(model: PreTrainedModel) -> list[int]:
    """What a model's data call each class, in the order of the class ids; these where its config does not say."""
    return list(getattr(model.config, "category_ids", range(len(labels_of(model)))))


def _check_head_fields(config_class: type[PreTrainedConfig], fields: dict[str, Any]) -> None:
    """Of the head's config, and of the configs that stand in it, such as that of MaskFormer's decoder."""
    check_fields(config_class, fields, "head.config")
    for name, sub_config in config_class.sub_configs_defaults.items():
        if isinstance(inner := fields.get(name), dict):
            check_fields(CONFIG_MAPPING[sub_config.model_type], inner, f"head.config.{name}")


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


def labels_of(model: PreTrainedModel) -> list[str]:
    """Class names in the order of their ids."""
    names = cast(dict[int, str], model.config.id2label)
    return [names[label] for label in range(len(names))]


def check_fits(model: PreTrainedModel, data: Data, task: Task) -> None:
    """Refuse to measure a model by data of another task or with other classes: every number would be wrong.

    Raises:
        UserError: the task, a class name, the order of the classes or, of panoptic data, what is countable differs.
    """
    if task_of(model) != task.name:
        raise UserError(f"the model was trained for {task_of(model)}, the recipe's task is {task.name}; set task=...")
    pairs = zip_longest(labels_of(model), data.labels)
    for index, (trained, annotated) in enumerate(pairs):
        if trained != annotated:
            raise UserError(
                f"class {index} is {_name(trained)} to the model and {_name(annotated)} in the data: the model was "
                f"trained with {model.config.num_labels} classes, the data has {len(data.labels)}; set data.labels"
            )
    if "segment_map" in task.columns and things_of(model) != data.things:
        differing = ", ".join(data.labels[index] for index in sorted(things_of(model) ^ data.things))
        raise UserError(f"{differing}: countable either to the model or in the data, but not to both")


def _name(label: str | None) -> str:
    return "nothing" if label is None else repr(label)
