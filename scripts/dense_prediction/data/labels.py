"""Names of the classes: from the recipe, from a file it names, or from the data."""

from pathlib import Path

from ..errors import UserError
from .options import DataOptions
from .samples import IGNORE_INDEX


def choose_labels(recipe: DataOptions, task: str, from_data: list[str] | None) -> list[str]:
    """The recipe's class names in the order of their ids, else the data's.

    Raises:
        UserError: neither names the classes, two are alike, or there are too few or, for one byte a pixel, too many.
    """
    labels = recipe_labels(recipe) or from_data
    if labels is None:
        raise UserError("the dataset does not name its classes: list them in data.labels, in the order of their ids")
    if task == "semantic_segmentation" and not 2 <= len(labels) < IGNORE_INDEX:
        raise UserError(f"data.labels must name 2 to {IGNORE_INDEX - 1} classes, got {len(labels)}")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"data.labels: every class needs a name of its own, got several {', '.join(twice)}")
    return labels


def recipe_labels(recipe: DataOptions) -> list[str] | None:
    """`data.labels`, read if it is a file with a name a line."""
    if not isinstance(recipe.labels, str):
        return recipe.labels
    path = Path(recipe.labels).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.labels={recipe.labels}: cannot read {path.resolve()}: {error}") from error
    return [line.strip() for line in lines if line.strip()]
