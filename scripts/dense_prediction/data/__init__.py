"""Where samples come from: datasets of the `datasets` library, files in the usual layouts, or shapes that we draw."""

from .bad_samples import BadSample, CheckedSplit
from .bundle import Data, load_data
from .hub import DatasetSplit
from .samples import IGNORE_INDEX, VOID, Sample, Split
from .streaming import StreamedSplit
from .synthetic import ShapesSplit


__all__ = [
    "IGNORE_INDEX",
    "VOID",
    "BadSample",
    "Data",
    "DatasetSplit",
    "Sample",
    "ShapesSplit",
    "CheckedSplit",
    "Split",
    "StreamedSplit",
    "load_data",
]
