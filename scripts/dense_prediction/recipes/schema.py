"""What a recipe may say. Every field has a type, a range and a description; `--help` is made from them."""

import fractions
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from .evaluation_options import EvaluationRecipe


_FORBID_UNKNOWN = ConfigDict(extra="forbid")

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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

Task = Literal["semantic_segmentation", "instance_segmentation", "panoptic_segmentation", "object_detection"]

ExifOrientation = Literal["refuse", "stored", "upright"]


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class DataRecipe:
    path: str = Field(description="folder of the data, Hub id, or synthetic_shapes for pictures that are drawn")
    format: Literal["datasets", "folders", "coco", "coco_panoptic", "voc"] = Field(
        "datasets", description="what path is: read by datasets.load_dataset, images and masks in folders, ..."
    )
    train_split: str = Field("train", description="split to learn from")
    validation_split: str = Field("validation", description="split to measure and to choose the best model on")
    test_split: str | None = Field(None, description="split to measure a finished model on")
    image_column: str = Field("image", description="of datasets: column with the image")
    label_column: str = Field("label", description="of datasets: column with the class ids, as large as the image")
    objects_column: str = Field("objects", description="of datasets: column with the bbox and category of each object")
    box_format: Literal["xywh", "xyxy", "cxcywh"] = Field("xywh", description="of datasets: bbox, in pixels")
    images: dict[str, str] = Field(default_factory=dict, description="folder of the images of each split, below path")
    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")
    mask_suffix: str = Field(".png", description="of folders: what stands after the image's stem in a mask's name")
    annotations: dict[str, str] = Field(default_factory=dict, description="COCO JSON of each split, below path")
    labels: list[str] | str | None = Field(
        None, description="class names in the order of their ids, or a file with a name a line; else from the data"
    )
    ignore_index: NonNegative = Field(255, description="id in the label files that is no class")
    reduce_labels: bool = Field(False, description="0 in the label files is no class, and 1 the first (ADE20K)")
    bad_samples: Literal["refuse", "skip"] = Field(
        "refuse", description="stop at a damaged picture or annotation, or report it and take the next sample"
    )
    exif_orientation: ExifOrientation = Field(
        "refuse", description="what was annotated of pictures that EXIF turns; refuse makes them bad samples"
    )
    streaming: bool = Field(False, description="of datasets: read while training, for what is larger than the disk")
    shuffle_buffer: Positive = Field(1000, description="of streaming: how many samples the next is drawn from")
    max_train_samples: Positive | None = Field(None, description="learn from the first so many samples only")
    max_validation_samples: Positive | None = Field(None, description="measure on the first so many samples only")
    workers: NonNegative = Field(0, description="processes that load data; 0 loads it between the steps")

    @model_validator(mode="after")
    def _check_streaming(self) -> Self:
        if self.streaming and self.format != "datasets":
            raise ValueError(f"streaming=true needs format=datasets, got format={self.format}")
        return self


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class TransformRecipe:
    resize: Literal["jitter", "shortest_edge", "fixed"] = Field(
        "jitter", description="what gives a training image its size: base_size, shortest_edges, or crop_size (fixed)"
    )
    base_size: tuple[Positive, Positive] | None = Field(
        None, description="of jitter: what an image, upright or not, is fitted into at scale 1; crop_size if null"
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field((0.5, 2.0), description="of jitter: range of the random scale")
    crop_size: tuple[Positive, Positive] | None = Field(
        None, description="height, width of the training crop (padded for jitter), or of fixed images"
    )
    cat_max_ratio: Fraction = Field(
        1.0, description="of jitter, semantic: a crop is drawn again if one class covers more of it than this"
    )
    shortest_edges: list[Positive] = Field(
        default_factory=lambda: list(range(480, 801, 32)),
        min_length=1,
        description="of shortest_edge: one is drawn for each training image; evaluation takes the largest",
    )
    longest_edge: Positive = Field(1333, description="of shortest_edge: no image gets longer than this")
    crop_first: Fraction = Field(
        0.0, description="of shortest_edge: probability that an image is cropped before, as DETR does (there 0.5)"
    )
    evaluation_resize: Literal["none", "shortest_edge", "fixed"] = Field(
        "none", description="how evaluated images get their size; none keeps it"
    )
    size_divisor: Positive = Field(1, description="batches are padded to a height and width that this divides")
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

    @model_validator(mode="after")
    def _check_crop_size(self) -> Self:
        if self.crop_size is None and (self.resize != "shortest_edge" or self.evaluation_resize == "fixed"):
            raise ValueError(f"resize={self.resize}, evaluation_resize={self.evaluation_resize} need a crop_size")
        return self


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class BackboneRecipe:
    config: str | None = Field(None, description="JSON file of a backbone config, built with random weights")
    checkpoint: str | None = Field(
        None,
        description="folder or Hub id of a pretrained backbone, instead of config; "
        "or of a trained model, of which the backbone goes on and the head starts anew",
    )
    trunk: str | None = Field(
        None, description="published ViT, timm/NAME or a Hub id, in place of the config's trunk and with its weights"
    )
    overrides: dict[str, Any] = Field(default_factory=dict, description="fields of the backbone config to change")
    trunk_weights: str | None = Field(None, description="safetensors file of a timm model, loaded into the ViT trunk")
    freeze_trunk: bool = Field(False, description="train everything but the ViT trunk")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class HeadRecipe:
    name: Literal["upernet", "mask2former", "detr", "deformable_detr", "rt_detr", "rt_detr_v2", "d_fine"] = Field(
        description="which head of transformers"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="fields of the head's transformers config")


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class OptimizationRecipe:
    learning_rate: PositiveFloat = Field(description="peak learning rate of everything but the trunk")
    trunk_lr_multiplier: PositiveFloat = Field(1.0, description="the trunk's learning rate is this times the other")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each trunk block learns this times as fast as the block after it"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="of AdamW; not on norms, biases, embeddings")
    schedule: Literal["poly", "cosine", "multi_step", "constant"] = Field(
        "poly", description="learning rate after the warm-up; poly falls linearly to 0"
    )
    milestones: list[ShareOfTheRun] = Field(
        default_factory=list, description="of multi_step: where it drops, in shares of the run, such as 8/12 or 0.75"
    )
    milestone_factor: Fraction = Field(0.1, description="of multi_step: what each drop multiplies it with")
    warmup_steps: NonNegative = Field(0, description="steps of linear warm-up")
    warmup_start_factor: Fraction = Field(0.0, description="share of the learning rate that the warm-up starts with")
    max_grad_norm: PositiveFloat | None = Field(None, description="clip the gradient to this norm")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="evaluate and save an average of the weights that keeps this share of itself each step"
    )
    ema_warmup_steps: NonNegative = Field(0, description="steps in which ema_decay grows to two thirds of its value")

    @model_validator(mode="after")
    def _check_milestones(self) -> Self:
        if (self.schedule == "multi_step") != bool(self.milestones):
            raise ValueError(f"schedule={self.schedule}, milestones={self.milestones}: multi_step alone needs them")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones={self.milestones} must grow")
        return self


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class TrainingRecipe:
    steps: Positive | None = Field(None, description="optimizer steps; set this or epochs")
    epochs: Positive | None = Field(None, description="passes over the training data, instead of steps")
    batch_size: Positive = Field(description="images per process and forward pass")
    gradient_accumulation: Positive = Field(1, description="forward passes per optimizer step")
    samples_per_step: Positive | None = Field(
        None, description="images per optimizer step, of all processes, that learning_rate is for; else a warning"
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field("no", description="autocast; fp16 needs a GPU")
    gradient_checkpointing: bool = Field(False, description="recompute the backbone's activations to save memory")
    log_every: Positive = Field(1, description="steps that one point of the loss curve averages")
    evaluate_every: Positive = Field(description="steps between evaluations; the last step is always evaluated")
    checkpoint_every: Positive = Field(description="steps between checkpoints, a multiple of log_every")
    early_stopping: Positive | None = Field(None, description="stop after so many evaluations without a better model")
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


@dataclass(frozen=True, kw_only=True, config=_FORBID_UNKNOWN)
class Recipe:
    name: str = Field(description="the recipe's path below its recipes folder; not to be set")
    task: Task = Field("semantic_segmentation", description="what to learn")
    data: DataRecipe
    transforms: TransformRecipe
    backbone: BackboneRecipe
    head: HeadRecipe
    optimization: OptimizationRecipe
    training: TrainingRecipe
    evaluation: EvaluationRecipe = Field(
        default_factory=EvaluationRecipe, description="how a picture is looked at when it is measured"
    )
    seed: NonNegative = Field(0, description="of the initial weights, the order of the data and its augmentation")
    output: str = Field(
        default_factory=lambda fields: f"outputs/{fields['name']}", description="folder for everything the run writes"
    )
    overwrite: bool = Field(False, description="start again in an output folder that already holds a run")
    resume: str | None = Field(None, description="auto for the last checkpoint in output, or a checkpoint folder")

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        steps = self.training.steps
        if steps is not None and self.optimization.warmup_steps >= steps:
            raise ValueError(
                f"optimization.warmup_steps={self.optimization.warmup_steps} must be below training.steps={steps}"
            )
        return self
