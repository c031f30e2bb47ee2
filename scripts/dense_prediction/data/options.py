"""What a recipe may say of data of any format. Each format adds its own keys, beside its reader in `formats/`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from ..errors import UserError
from ..options import FORBID_UNKNOWN, NonNegative, Positive
from ..tasks import Task
from .deep_pictures import Range
from .samples import Source


ExifOrientation = Literal["auto", "stored", "upright"]


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class DataOptions(ABC):
    """What all formats have. A subclass that says its `tasks` is a format, called by the default of its `format`."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks that it has samples for."""

    has_path: ClassVar[bool] = True
    """Whether the data are at a path; where they are not, the format's name stands in its place."""

    path: str = Field(description="folder of the data, Hub id, or synthetic_shapes for pictures that are drawn")
    format: str = Field(
        default="datasets", description="what path is: read by datasets.load_dataset, images and masks in folders, ..."
    )
    train_split: str = Field(default="train", description="split to learn from")
    validation_split: str = Field(default="validation", description="split to measure and to choose the best model on")
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="share of the training split that is held back for measuring, by the names of its pictures, in "
        "the place of validation_split",
    )
    test_split: str | None = Field(default=None, description="split to measure a finished model on")
    labels: list[str] | None = Field(
        default=None,
        description="class names in the order of their ids, or a file with a name a line; else from the data",
    )
    bad_samples: Literal["refuse", "skip"] = Field(
        default="refuse", description="stop at a damaged picture or annotation, or report it and take the next sample"
    )
    exif_orientation: ExifOrientation = Field(
        default="auto",
        description="what was annotated of pictures that EXIF turns: stored, upright as viewers show them, or auto: "
        "as the annotated height and width say, upright where both fit",
    )
    intensity: Literal["auto", "range"] | tuple[float, float] = Field(
        default="auto",
        description="the numbers that are black and white in pictures of more than 8 bits: [low, high], auto for the "
        "0.5th and 99.5th percentile of the training pictures, range for their lowest and highest",
    )
    max_train_samples: Positive | None = Field(default=None, description="learn from the first so many samples only")
    max_validation_samples: Positive | None = Field(
        default=None, description="measure on the first so many samples only"
    )
    workers: NonNegative = Field(default=0, description="processes that load data; 0 loads it between the steps")

    @abstractmethod
    def open(self, task: Task) -> Source:
        """The dataset, whose samples have the columns of one of `tasks`.

        Raises:
            UserError: it cannot be found or read, or does not name its classes.
        """

    @field_validator("intensity")
    @classmethod
    def _check_intensity(cls, value: str | Range) -> str | Range:
        if not isinstance(value, str) and not (value[0] < value[1] and all(map(math.isfinite, value))):
            raise ValueError(f"{list(value)} must be [low, high], two numbers of which the second is larger")
        return value

    @property
    def known_intensity(self) -> Range | None:
        """`intensity`, if it is known before or after a look at the pictures."""
        return None if isinstance(self.intensity, str) else self.intensity

    @property
    def skips_bad_samples(self) -> bool:
        return self.bad_samples == "skip"

    def class_names(self, from_data: list[str] | None) -> list[str]:
        """`labels`, else the data's own names, in the order of their ids.

        Raises:
            UserError: neither names the classes, or two are alike.
        """
        names = self.labels or from_data
        if not names:
            raise UserError(
                "the dataset does not name its classes: list them in data.labels, in the order of their ids"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"data.labels: every class needs a name of its own, got several {', '.join(twice)}")
        return names

    def root_folder(self) -> Path:
        """`path`, which must be a folder."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise UserError(f"data.path={self.path}: there is no folder {folder.absolute()}; set data.path=FOLDER")
        return folder


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class SplitPlaces(DataOptions):
    """Of formats in which each split has places of its own below `path`."""

    images: dict[str, str] = Field(default_factory=dict, description="folder of the images of each split, below path")

    def place(self, field: str, key: str) -> Path:
        """Where `data.{field}`, such as images, has the split that `data.{key}` names."""
        name, places = getattr(self, key), getattr(self, field)
        if name not in places:
            raise UserError(
                f"data.{key}={name}: data.{field} says no place for this split; set data.{field}.{name}=PATH below "
                f"{self.path}{it_has(places)}"
            )
        path = self.root_folder() / places[name]
        if not path.exists():
            raise UserError(f"data.{field}.{name}={places[name]}: {path.absolute()} does not exist")
        return path

    def check_places(self, *fields: str) -> None:
        """Find out, before a file is read that may take long, that every split has a place in each of these fields."""
        keys = ["train_split"]
        keys += ["validation_split"] if self.validation_share is None else []
        keys += ["test_split"] if self.test_split is not None else []
        for key in keys:
            for field in fields:
                self.place(field, key)


def some(names: Sequence[object], most: int = 20) -> str:
    """`a, b and 60 more`: the first ones, and how many others there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def it_has(names: Iterable[str]) -> str:
    """`, it has a, b` for the end of a message, or nothing."""
    listed = ", ".join(names)
    return f", it has {listed}" if listed else ""
