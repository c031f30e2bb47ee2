"""How semantic segmentation looks at a picture that it is measured on: once, or from several views."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass


Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluationRecipe:
    scales: Annotated[list[PositiveFloat], Field(min_length=1)] = Field(
        default_factory=lambda: [1.0], description="semantic: sizes of the picture whose scores are averaged"
    )
    flip: bool = Field(False, description="semantic: average with the mirrored picture at every scale")
    window: tuple[Positive, Positive] | None = Field(
        None, description="semantic: height, width of a window that slides over the picture; null for all at once"
    )
    stride: tuple[Positive, Positive] | None = Field(
        None, description="semantic: steps of the window down and to the right, usually two thirds of it"
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if (self.window is None) != (self.stride is None):
            raise ValueError(f"window={self.window}, stride={self.stride}: set both or none")
        if self.window and any(step > side for step, side in zip(self.stride, self.window)):
            raise ValueError(f"stride={list(self.stride)} leaves gaps between windows of {list(self.window)} pixels")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the model sees every picture once, as it is."""
        return self.scales == [1.0] and not self.flip and self.window is None
