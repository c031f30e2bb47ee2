"""A head that starts from a trained one, whatever backbone that has: what fits is taken over, the rest starts anew."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from ..failures import NOT_TO_BE_HAD, cache_or_hub, is_unreached
from .building import labels_of
from .head import Head


_logger = logging.getLogger(__name__)

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Of batch norms: the only buffers that are learnt. Others, such as the weights of a loss, follow from the config."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Taken:
    """What a new head has of a trained one.

    Attributes:
        whole: names of the tensors that were copied.
        by_class: names of the tensors of which the rows of `classes` were copied.
        anew: names of the others.
        classes: names that both heads know.
    """

    whole: list[str]
    by_class: list[str]
    anew: list[str]
    classes: list[str]

    def __str__(self) -> str:
        return (
            f"{len(self.whole)} tensors are taken over, and of {len(self.by_class)} class layers the rows of "
            f"{_few(self.classes, 'no class')}; {len(self.anew)} start anew: {_few(self.anew, 'none')}"
        )


def start_from(model: PreTrainedModel, head: Head, checkpoint: str) -> Taken:
    """Copy into a new model what fits of the head of a trained one, and log what that was.

    A tensor fits whose name and shape agree. Of layers with a row for each class those of the classes are copied that
    have the same name in both, and those that stand for no class, such as DETR's "no object". The backbone stays as it
    is.

    Args:
        checkpoint: folder or Hub id of a model of the same head.

    Raises:
        UserError: there is none, it is of another head, or nothing of it fits.
    """
    trained = _read(head, checkpoint)
    new, old = _learnt(model, head), _learnt(trained, head)
    class_layers = _class_layers(model) & old.keys()
    whole = [name for name in new if name not in class_layers and _shape(new, name) == _shape(old, name)]
    by_class = [name for name in new if name in class_layers and new[name].shape[1:] == old[name].shape[1:]]
    if not whole:
        raise UserError(
            f"head.checkpoint={checkpoint}: no tensor of it has the shape of the new head's: give head.config the "
            "widths that it was trained with"
        )
    labels, old_labels = labels_of(model), labels_of(trained)
    places = _common_classes(labels, old_labels)
    with torch.no_grad():
        for name in whole:
            new[name].copy_(old[name])
        for name in by_class:
            _copy_rows(old[name], new[name], places, len(old_labels), len(labels))
    anew = [name for name in new if name not in {*whole, *by_class}]
    taken = Taken(whole, by_class, anew, [labels[label] for label, _ in places])
    _logger.warning("head.checkpoint=%s: %s", checkpoint, taken)
    return taken


def check_checkpoint(head: Head, checkpoint: str) -> PreTrainedConfig:
    """The config of a trained model, which is of the same head.

    Raises:
        UserError: there is none, or it is of another head.
    """
    with _refused(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint)
    if config.model_type != head.config_class.model_type:
        raise UserError(
            f"head.checkpoint={checkpoint} is a {config.model_type}, and head.name is that of a "
            f"{head.config_class.model_type}: give a trained model of the same head"
        )
    return config


def _read(head: Head, checkpoint: str) -> PreTrainedModel:
    config = check_checkpoint(head, checkpoint)
    with _refused(checkpoint):
        return head.model_class.from_pretrained(checkpoint, config=config, dtype=torch.float32)


@contextmanager
def _refused(checkpoint: str) -> Iterator[None]:
    """Say it in one line if there is no such repository or folder, or nothing that can be loaded."""
    with cache_or_hub(checkpoint):
        try:
            yield
        # An unknown model, damaged weights, or a package that its backbone needs.
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            reason = NOT_TO_BE_HAD if is_unreached(error) else " ".join(str(error).split())
            raise UserError(f"head.checkpoint={checkpoint} cannot be loaded: {reason}") from error


def _learnt(model: PreTrainedModel, head: Head) -> Tensors:
    """The tensors of a model outside its backbone that training changes, by their names."""
    backbone = f"{head.entry.backbone}."
    buffers = {name: buffer for name, buffer in model.named_buffers() if name.endswith(STATISTICS)}
    # A tensor that has several names once: what is copied into one is in all.
    return {
        name: tensor
        for name, tensor in (dict(model.named_parameters()) | buffers).items()
        if not name.startswith(backbone)
    }


def _class_layers(model: PreTrainedModel) -> set[str]:
    """Names of the tensors with a row for each class: those that one more class makes longer."""
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate([*labels_of(model), ""]))
    with torch.device("meta"):
        larger: nn.Module = type(model)(config)
    shapes = {name: tensor.shape for name, tensor in larger.named_parameters()}
    return {name for name, tensor in model.named_parameters() if tensor.shape != shapes[name]}


def _copy_rows(
    old: torch.Tensor, new: torch.Tensor, places: Sequence[tuple[int, int]], old_labels: int, new_labels: int
) -> None:
    """The rows of `places`, which are pairs of a new and an old class id, and those behind all classes."""
    for label, place in places:
        new[label].copy_(old[place])
    new[new_labels:].copy_(old[old_labels:])


def _common_classes(new: Sequence[str], old: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of class ids with the same name, whatever its case, and with blanks or underscores between words."""
    places = {_plain(name): place for place, name in enumerate(old)}
    return [(label, places[_plain(name)]) for label, name in enumerate(new) if _plain(name) in places]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _shape(tensors: Tensors, name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _few(names: Sequence[str], none: str) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]) or none
