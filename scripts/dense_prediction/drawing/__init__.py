"""Pictures of predictions and of ground truth, for every task and for pictures of every size."""

from .colors import class_color, object_color
from .pages import comparison, with_legend
from .pictures import draw


__all__ = ["class_color", "comparison", "draw", "object_color", "with_legend"]
