"""The moving average of the weights under HF's Trainer: what is measured, saved and, at the end, left in the model."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import UserError
from ...recipes.schema import OptimizationOptions
from ..ema import build_average


WEIGHTS_FILE = "training_weights.pt"
"""In a checkpoint, whose `model.safetensors` is the average: the weights that are trained."""


class AverageCallback(TrainerCallback):
    """Follows a model through a training, if the recipe asks for an average.

    Attributes:
        average: None without one, and after a training.

    Raises:
        UserError: the model's weights are spread over processes.
    """

    def __init__(self, accelerator: Accelerator, model: PreTrainedModel, recipe: OptimizationOptions) -> None:
        self.accelerator = accelerator
        self.trained = model
        self.average: AveragedModel | None = build_average(model, recipe)
        if self.average is not None and accelerator.distributed_type == DistributedType.FSDP:
            raise UserError("optimization.ema_decay needs whole weights in every process: set it to null under FSDP")

    def save(self, checkpoint: Path) -> None:
        """Write what a resumed run needs beside the averaged model."""
        if self.average is not None:
            content = {"weights": self.trained.state_dict(), "updates": self.average.n_averaged}
            torch.save(content, checkpoint / WEIGHTS_FILE)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Part what Trainer has read from a checkpoint, the average, from the weights that are trained."""
        if self.average is None or args.resume_from_checkpoint is None:
            return
        content = torch.load(Path(args.resume_from_checkpoint) / WEIGHTS_FILE, args.device, weights_only=True)
        self.average.module.load_state_dict(self.trained.state_dict())
        self.average.n_averaged.copy_(content["updates"])
        self.trained.load_state_dict(content["weights"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.average is not None and not self.accelerator.optimizer_step_was_skipped:
            self.average.update_parameters(self.trained)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the average in the model, unless Trainer has already put the best one there."""
        if self.average is not None and not (args.load_best_model_at_end and state.best_model_checkpoint):
            self.trained.load_state_dict(self.average.module.state_dict())
        self.average = None
