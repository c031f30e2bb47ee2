"""What a recipe may say. Every field has a type, a range and a description; `--help` is made from them."""

import fractions
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic.dataclasses import dataclass

from ..batches.options import TransformOptions
from ..data.formats import format_of, formats
from ..data.options import DataOptions
from ..models.options import BackboneOptions, HeadOptions
from ..options import FORBID_UNKNOWN, Fraction, NonNegative, Positive, PositiveFloat


def _share_of_the_run(value: Any) -> float:
    """8/12, which YAML reads as a word, or a number."""
    try:
        share = float(fractions.Fraction(str(value)))
    except (ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"got {value!r}, expected a share of the run between 0 and 1: epoch 8 of 12 ends at 8/12")
    return share


ShareOfTheRun = Annotated[float, BeforeValidator(_share_of_the_run)]


def _of_its_format(value: Any, handler: ValidatorFunctionWrapHandler) -> DataOptions:
    """The options of the format that `data` are in."""
    if not isinstance(value, dict):
        return handler(value)
    cls = format_of(value)
    if cls is None:
        raise ValueError(f"format={value['format']!r}: expected one of {', '.join(formats())}")
    return TypeAdapter(cls).validate_python(value | {"format": cls.format})


Data = Annotated[DataOptions, WrapValidator(_of_its_format)]


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class OptimizationOptions:
    learning_rate: PositiveFloat = Field(description="peak learning rate of everything but the trunk")
    trunk_lr_multiplier: PositiveFloat = Field(
        default=1.0, description="the trunk's learning rate is this times the other"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="each trunk block learns this times as fast as the block after it"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="of AdamW; not on norms, biases, embeddings"
    )
    schedule: Literal["poly", "cosine", "multi_step", "constant"] = Field(
        default="poly", description="learning rate after the warm-up; poly falls linearly to 0"
    )
    milestones: list[ShareOfTheRun] = Field(
        default_factory=list, description="of multi_step: where it drops, in shares of the run, such as 8/12 or 0.75"
    )
    milestone_factor: Fraction = Field(default=0.1, description="of multi_step: what each drop multiplies it with")
    warmup_steps: NonNegative = Field(default=0, description="steps of linear warm-up")
    warmup_start_factor: Fraction = Field(
        default=0.0, description="share of the learning rate that the warm-up starts with"
    )
    max_grad_norm: PositiveFloat | None = Field(default=None, description="clip the gradient to this norm")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="evaluate and save an average of the weights that keeps this share of itself each step",
    )
    ema_warmup_steps: NonNegative = Field(
        default=0, description="steps in which ema_decay grows to two thirds of its value"
    )

    @model_validator(mode="after")
    def _check_milestones(self) -> Self:
        if (self.schedule == "multi_step") != bool(self.milestones):
            raise ValueError(f"schedule={self.schedule}, milestones={self.milestones}: multi_step alone needs them")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones={self.milestones} must grow")
        return self


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class TrainingOptions:
    steps: Positive | None = Field(default=None, description="optimizer steps; set this or epochs")
    epochs: Positive | None = Field(default=None, description="passes over the training data, instead of steps")
    batch_size: Positive = Field(description="images per process and forward pass")
    gradient_accumulation: Positive = Field(default=1, description="forward passes per optimizer step")
    samples_per_step: Positive | None = Field(
        default=None,
        description="images per optimizer step, of all processes, that learning_rate is for; else a warning",
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="autocast; fp16 needs a GPU")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute the backbone's activations to save memory"
    )
    log_every: Positive = Field(default=1, description="steps that one point of the loss curve averages")
    evaluate_every: Positive = Field(description="steps between evaluations; the last step is always evaluated")
    checkpoint_every: Positive = Field(description="steps between checkpoints, a multiple of log_every")
    early_stopping: Positive | None = Field(
        default=None, description="stop after so many evaluations without a better model"
    )
    trackers: list[str] = Field(default_factory=list, description="tensorboard, trackio, wandb, ... to log to")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"set one of steps and epochs (the other null), got {self.steps} and {self.epochs}")
        return self

    @model_validator(mode="after")
    def _check_checkpoints(self) -> Self:
        # The running mean of the loss is no part of a checkpoint.
        if self.checkpoint_every % self.log_every:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} is no multiple of log_every={self.log_every}")
        return self


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class EvaluationOptions:
    """How semantic segmentation looks at a picture that it is measured on, once or from several views; and how many
    objects are found in one.
    """

    scales: Annotated[list[PositiveFloat], Field(min_length=1)] = Field(
        default_factory=lambda: [1.0], description="semantic: sizes of the picture whose scores are averaged"
    )
    flip: bool = Field(default=False, description="semantic: average with the mirrored picture at every scale")
    window: tuple[Positive, Positive] | None = Field(
        default=None,
        description="semantic: height, width of a window that slides over the picture; null for all at once",
    )
    stride: tuple[Positive, Positive] | None = Field(
        default=None, description="semantic: steps of the window down and to the right, usually two thirds of it"
    )

    max_detections: Positive = Field(
        default=100,
        description="boxes and instances: the best ones of a picture that count; 100 gives COCO's numbers, others "
        "have it in their names",
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if (self.window is None) != (self.stride is None):
            raise ValueError(f"window={self.window}, stride={self.stride}: set both or none")
        if self.window and self.stride and any(step > side for step, side in zip(self.stride, self.window)):
            raise ValueError(f"stride={list(self.stride)} leaves gaps between windows of {list(self.window)} pixels")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the model sees every picture once, as it is."""
        return self.scales == [1.0] and not self.flip and self.window is None


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class Recipe:
    name: str = Field(description="the recipe's path below its recipes folder; not to be set")
    task: str = Field(
        default="semantic_segmentation",
        description="what to learn: semantic_, instance_ or panoptic_segmentation, or object_detection",
    )
    data: Data
    transforms: TransformOptions
    backbone: BackboneOptions
    head: HeadOptions
    optimization: OptimizationOptions
    training: TrainingOptions
    evaluation: EvaluationOptions = Field(
        default_factory=EvaluationOptions, description="how a picture is looked at when it is measured"
    )
    seed: NonNegative = Field(
        default=0, description="of the initial weights, the order of the data and its augmentation"
    )
    output: str = Field(
        default_factory=lambda fields: f"outputs/{fields['name']}", description="folder for everything the run writes"
    )
    overwrite: bool = Field(default=False, description="start again in an output folder that already holds a run")
    resume: str | None = Field(
        default=None, description="auto for the last checkpoint in output, or a checkpoint folder"
    )

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        steps = self.training.steps
        if steps is not None and self.optimization.warmup_steps >= steps:
            raise ValueError(
                f"optimization.warmup_steps={self.optimization.warmup_steps} must be below training.steps={steps}"
            )
        return self
