"""What a recipe may say of how images are prepared."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..options import FORBID_UNKNOWN, Fraction, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class TransformOptions:
    resize: Literal["jitter", "shortest_edge", "fixed"] = Field(
        default="jitter",
        description="what gives a training image its size: base_size, shortest_edges, or crop_size (fixed)",
    )
    base_size: tuple[Positive, Positive] | None = Field(
        default=None,
        description="of jitter: what an image, upright or not, is fitted into at scale 1; crop_size if null",
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.5, 2.0), description="of jitter: range of the random scale"
    )
    crop_size: tuple[Positive, Positive] | None = Field(
        default=None, description="height, width of the training crop (padded for jitter), or of fixed images"
    )
    cat_max_ratio: Fraction = Field(
        default=1.0, description="of jitter, semantic: a crop is drawn again if one class covers more of it than this"
    )
    shortest_edges: list[Positive] = Field(
        default_factory=lambda: list(range(480, 801, 32)),
        min_length=1,
        description="of shortest_edge: one is drawn for each training image; evaluation takes the largest",
    )
    longest_edge: Positive = Field(default=1333, description="of shortest_edge: no image gets longer than this")
    crop_first: Fraction = Field(
        default=0.0,
        description="of shortest_edge: probability that an image is cropped before, as DETR does (there 0.5)",
    )
    evaluation_resize: Literal["none", "shortest_edge", "fixed"] = Field(
        default="none", description="how evaluated images get their size; none keeps it"
    )
    size_divisor: Positive = Field(default=1, description="batches are padded to a height and width that this divides")
    flip: Fraction = Field(default=0.5, description="probability of a horizontal flip")
    vertical_flip: Fraction = Field(
        default=0.0, description="probability of a vertical flip, for pictures without an up and a down"
    )
    rotate: Literal["none", "quarter_turns"] = Field(
        default="none", description="turn a training image by 0, 90, 180 or 270 degrees, each as often"
    )
    photometric: bool | Literal["light", "standard", "strong"] = Field(
        default=True,
        description="jitter brightness, contrast, saturation and hue: light, standard (which is true), strong, false",
    )
    image_mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="mean of R, G, B in 0..1"
    )
    image_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        default=(0.229, 0.224, 0.225), description="standard deviation of R, G, B in 0..1"
    )

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale={list(self.scale)} must be [smallest, largest]")
        return self

    @model_validator(mode="after")
    def _check_crop_size(self) -> Self:
        if self.resize != "shortest_edge" or self.evaluation_resize == "fixed":
            self.needed_crop_size()
        return self

    def needed_crop_size(self) -> tuple[int, int]:
        """`crop_size`, of what cannot do without.

        Raises:
            ValueError: there is none.
        """
        if self.crop_size is None:
            raise ValueError(f"resize={self.resize}, evaluation_resize={self.evaluation_resize} need a crop_size")
        return self.crop_size
