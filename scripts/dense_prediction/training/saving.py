"""Trained models in folders, for `from_pretrained` and for our scripts."""

import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..atomic_files import replace_folder


def save_model(folder: Path, model: PreTrainedModel, weights: dict[str, Any], processor: BaseImageProcessor) -> None:
    """Write the model and its image processor; a model that was there before is kept until they are complete.

    Args:
        weights: of the model, whose own may be spread over processes.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=weights)
    processor.save_pretrained(partial)
    replace_folder(partial, folder)
