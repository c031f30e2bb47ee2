"""What a recipe may say. Every field has a type, a range and a description; `--help` is made from them."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass


_FORBID_UNKNOWN = ConfigDict(extra="forbid")

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class DataRecipe:
    path: str = Field(description="a folder or Hub id that datasets.load_dataset reads, or synthetic_shapes")
    train_split: str = Field("train", description="split to learn from")
    validation_split: str = Field("validation", description="split to measure and to choose the best model on")
    image_column: str = Field("image", description="column with the image")
    label_column: str = Field("label", description="column with the class ids, as large as the image")
    labels: list[str] | None = Field(None, description="class names in the order of their ids, else from the dataset")
    ignore_index: NonNegative = Field(255, description="id in the label files that is no class")
    max_validation_samples: Positive | None = Field(None, description="measure on the first so many samples only")
    workers: NonNegative = Field(0, description="processes that load data; 0 loads it between the steps")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class TransformRecipe:
    base_size: tuple[Positive, Positive] = Field(description="height, width that an image is fitted into at scale 1")
    scale: tuple[PositiveFloat, PositiveFloat] = Field((0.5, 2.0), description="range of the random scale")
    crop_size: tuple[Positive, Positive] = Field(description="height, width of the training crop, padded if needed")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    photometric: bool = Field(True, description="jitter brightness, contrast, saturation and hue")
    image_mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="mean of R, G, B in 0..1")
    image_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (0.229, 0.224, 0.225), description="standard deviation of R, G, B in 0..1"
    )

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale={list(self.scale)} must be [smallest, largest]")
        return self


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class BackboneRecipe:
    config: str | None = Field(None, description="JSON file of a backbone config, built with random weights")
    checkpoint: str | None = Field(None, description="folder or Hub id of a pretrained backbone, instead of config")
    overrides: dict[str, Any] = Field(default_factory=dict, description="fields of the backbone config to change")
    trunk_weights: str | None = Field(None, description="safetensors file of a timm model, loaded into the ViT trunk")
    freeze_trunk: bool = Field(False, description="train everything but the ViT trunk")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class HeadRecipe:
    name: Literal["upernet", "mask2former"] = Field(description="which head of transformers")
    config: dict[str, Any] = Field(default_factory=dict, description="fields of the head's transformers config")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class OptimizationRecipe:
    learning_rate: PositiveFloat = Field(description="peak learning rate of everything but the trunk")
    trunk_lr_multiplier: PositiveFloat = Field(1.0, description="the trunk's learning rate is this times the other")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each trunk block learns this times as fast as the block after it"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="of AdamW; not on norms, biases, embeddings")
    schedule: Literal["poly", "cosine", "constant"] = Field("poly", description="learning rate after the warm-up")
    warmup_steps: NonNegative = Field(0, description="steps of linear warm-up")
    max_grad_norm: PositiveFloat | None = Field(None, description="clip the gradient to this norm")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class TrainingRecipe:
    steps: Positive = Field(description="optimizer steps")
    batch_size: Positive = Field(description="images per process and forward pass")
    gradient_accumulation: Positive = Field(1, description="forward passes per optimizer step")
    mixed_precision: Literal["no", "bf16", "fp16"] = Field("no", description="autocast; fp16 needs a GPU")
    gradient_checkpointing: bool = Field(False, description="recompute the backbone's activations to save memory")
    log_every: Positive = Field(1, description="steps that one point of the loss curve averages")
    evaluate_every: Positive = Field(description="steps between evaluations; the last step is always evaluated")
    checkpoint_every: Positive = Field(description="steps between checkpoints, a multiple of log_every")

    @model_validator(mode="after")
    def _check_checkpoints(self) -> Self:
        # The running mean of the loss is no part of a checkpoint.
        if self.checkpoint_every % self.log_every:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} is no multiple of log_every={self.log_every}")
        return self


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class Recipe:
    name: str = Field(description="the recipe's path below its recipes folder; not to be set")
    data: DataRecipe
    transforms: TransformRecipe
    backbone: BackboneRecipe
    head: HeadRecipe
    optimization: OptimizationRecipe
    training: TrainingRecipe
    seed: NonNegative = Field(0, description="of the initial weights, the order of the data and its augmentation")
    output: str = Field(
        default_factory=lambda fields: f"outputs/{fields['name']}", description="folder for everything the run writes"
    )
    overwrite: bool = Field(False, description="start again in an output folder that already holds a run")
    resume: str | None = Field(None, description="auto for the last checkpoint in output, or a checkpoint folder")

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.optimization.warmup_steps >= self.training.steps:
            raise ValueError(
                f"optimization.warmup_steps={self.optimization.warmup_steps} must be below "
                f"training.steps={self.training.steps}"
            )
        return self
