"""What a folder of pictures and annotations is, so that nobody has to say it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...options import Tree
from ...tasks import Task
from ..formats import formats
from ..options import some
from .candidates import Candidate
from .coco import recognize_coco
from .masks import recognize_masks
from .survey import Survey
from .voc import recognize_voc
from .yolo import recognize_yolo


RECOGNIZERS: list[Callable[[Survey], list[Candidate]]] = [
    recognize_coco,
    recognize_yolo,
    recognize_voc,
    recognize_masks,
]


@dataclass(frozen=True)
class Found:
    """What was recognised.

    Attributes:
        data: what stands under `data:` of a recipe.
        words: one line for people, such as `YOLO: data.yaml, train 120 and validation 30 pictures, ...`.
    """

    data: Tree
    words: str


def recognize(source: str, task: Task, format: str | None = None) -> Found:
    """What the data at a place are, for a task.

    Args:
        source: a folder, a file in it, a zip file, or the id of a data set on the Hub.
        format: the name of the format, where somebody has said it.

    Raises:
        UserError: nothing is recognised that serves the task, or two formats are; one line says what was recognised
            and what is missing.
    """
    if format is not None and format not in formats():
        raise UserError(f"data.format={format}: expected one of {', '.join(formats())}")
    survey = Survey.of(_folder(source))
    candidates = [candidate for recognizer in RECOGNIZERS for candidate in recognizer(survey)]
    if format is not None:
        candidates = _of_format(candidates, format, source)
    fitting = [candidate for candidate in candidates if task.name in candidate.tasks and not candidate.missing]
    if len(fitting) > 1:
        raise UserError(_ambiguous(source, fitting))
    if not fitting:
        raise UserError(_why_not(source, survey, candidates, task))
    return Found(fitting[0].data, str(fitting[0]))


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"--data {source}: there is no {path.absolute()}; give a folder, a zip file or a Hub id")
    return path if path.is_dir() else path.parent


def _of_format(candidates: list[Candidate], format: str, source: str) -> list[Candidate]:
    found = [candidate for candidate in candidates if candidate.format == format]
    if not found:
        others = f"; it is {_listed(candidates)}" if candidates else ""
        raise UserError(f"{source} is not recognised as data.format={format}{others}")
    return found


def _ambiguous(source: str, fitting: list[Candidate]) -> str:
    keys = " or ".join(f"data.format={candidate.format}" for candidate in fitting)
    return f"{source} can be read in several ways, choose with {keys}: {_listed(fitting)}"


def _why_not(source: str, survey: Survey, candidates: list[Candidate], task: Task) -> str:
    """What was recognised, and what is missing of it or which tasks it serves."""
    incomplete = [candidate for candidate in candidates if candidate.missing]
    served = [candidate for candidate in candidates if candidate.tasks and not candidate.missing]
    if served:
        tasks = sorted({name for candidate in served for name in candidate.tasks})
        why = [f"; {candidate.missing}" for candidate in incomplete if task.name in formats()[candidate.format].tasks]
        return f"{source} is {_listed(served)}; it serves {' and '.join(tasks)}, not {task.name}{''.join(why[:1])}"
    if incomplete:
        return f"{source}: {'; '.join(f'{candidate}, but {candidate.missing}' for candidate in incomplete)}"
    if survey.num_pictures:
        return (
            f"{source} holds {survey.num_pictures:,} pictures and no annotations of them: expected COCO JSON, YOLO's "
            "data.yaml and text files, Pascal VOC's XML files, or a folder of masks"
        )
    listed = some(sorted(survey.folders)[:10] if "" not in survey.folders else survey.folders[""], 5)
    return f"{source} holds no pictures ({listed}): give the folder in which pictures and annotations are"


def _listed(candidates: Iterable[Candidate]) -> str:
    return "; ".join(str(candidate) for candidate in candidates)
