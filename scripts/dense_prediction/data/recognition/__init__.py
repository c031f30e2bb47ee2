"""What a folder of pictures and annotations is, so that nobody has to say it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...options import Tree
from ...tasks import Task
from ..annotations.other_tools import KINDS, kind_of
from ..archives import is_archive, unpack
from ..formats import formats
from ..options import some
from ..painted_maps import BACKGROUND, PaintedOptions
from .candidates import Candidate
from .coco import recognize_coco
from .masks import recognize_masks
from .names import role_of
from .survey import Survey
from .tables import is_hub_id, recognize_rows, recognize_tables
from .voc import recognize_voc
from .yolo import recognize_yolo


RECOGNIZERS: list[Callable[[Survey], list[Candidate]]] = [
    recognize_coco,
    recognize_yolo,
    recognize_voc,
    recognize_masks,
    recognize_tables,
]


MOST_LOOKED_INTO = 20
"""Files of one ending, to tell which tool wrote them."""


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
    candidates, contents = _candidates(source)
    if format is not None:
        candidates = _of_format(candidates, format, source)
    fitting = [candidate for candidate in candidates if task.name in candidate.tasks and not candidate.missing]
    fitting = _best(fitting, task)
    if len(fitting) > 1:
        raise UserError(_in_one_line(_ambiguous(source, fitting)))
    if not fitting:
        raise UserError(_in_one_line(_why_not(source, contents, candidates, task)))
    painted = f"; the outlines are painted as maps, what none of them covers is {BACKGROUND}"
    return Found(fitting[0].data, _in_one_line(f"{fitting[0]}{painted * _is_painted(fitting[0], task)}"))


def _best(fitting: list[Candidate], task: Task) -> list[Candidate]:
    """Without what says less: maps that have to be painted beside maps, and masks alone beside annotations."""
    drawn = [candidate for candidate in fitting if not _is_painted(candidate, task)] or fitting
    return [candidate for candidate in drawn if candidate.format != "instance_masks"] or drawn


def _is_painted(candidate: Candidate, task: Task) -> bool:
    """Whether the maps that the task wants are made of outlines."""
    return "semantic_map" in task.columns and issubclass(formats()[candidate.format], PaintedOptions)


def _candidates(source: str) -> tuple[list[Candidate], str]:
    """What the data may be taken for, and what is there, for a message."""
    path = Path(source).expanduser()
    if not path.exists():
        if not is_hub_id(source):
            raise UserError(f"{path.absolute()} does not exist: give a folder, a zip file or the id of a Hub data set")
        return recognize_rows(source), "a data set on the Hub"
    survey = _survey(path)
    return [candidate for recognizer in RECOGNIZERS for candidate in recognizer(survey)], _contents(survey)


def _survey(path: Path) -> Survey:
    """What is in a folder, beside a file of it, or in an archive, which may be the only thing in a folder."""
    if path.is_file() and not is_archive(path):
        # What is said of pictures stands beside their folder as often as above it.
        folder = path.parent.parent if role_of(path.parent.name) == "masks" else path.parent
        return Survey.of(folder, path.relative_to(folder).as_posix())
    if path.is_file():
        return _survey(unpack(path))
    survey = Survey.of(path)
    files = [survey.root / folder / name for folder, names in survey.folders.items() for name in names]
    return _survey(unpack(files[0])) if len(files) == 1 and is_archive(files[0]) else survey


def _contents(survey: Survey) -> str:
    if (other := _of_other_tools(survey)) is not None:
        return f"{survey.num_pictures:,} pictures and {other}"
    if survey.num_pictures:
        kinds = {"COCO's JSON": survey.paths(".json"), "VOC's XML": survey.paths(".xml")}
        others = "".join(f"; {paths[0]} is not {kind}" for kind, paths in kinds.items() if paths)
        return (
            f"{survey.num_pictures:,} pictures and no annotations of them: expected COCO JSON, YOLO's data.yaml and "
            f"text files, Pascal VOC's XML files, or a folder of masks{others}"
        )
    listed = some(survey.folders.get("") or sorted(survey.folders), 5)
    return f"no pictures ({listed}): give the folder in which pictures and annotations are"


def _of_other_tools(survey: Survey) -> str | None:
    """What is there that no format reads, and how to bring it into one."""
    for ending in dict.fromkeys(ending for kind in KINDS for ending in kind.endings):
        paths = survey.paths(ending)
        for path in paths[:: max(1, -(-len(paths) // MOST_LOOKED_INTO))]:
            if (kind := kind_of(survey.root / path)) is not None:
                return f"{kind.title} ({path}), which is not read: {kind.advice}"
    return None


def _of_format(candidates: list[Candidate], format: str, source: str) -> list[Candidate]:
    found = [candidate for candidate in candidates if candidate.format == format]
    if not found:
        others = f"; it is {_listed(candidates)}" if candidates else ""
        raise UserError(f"{source} is not recognised as data.format={format}{others}")
    return found


def _ambiguous(source: str, fitting: list[Candidate]) -> str:
    keys = " or ".join(f"data.format={candidate.format}" for candidate in fitting)
    return f"{source} can be read in several ways, choose with {keys}: {_listed(fitting)}"


def _why_not(source: str, contents: str, candidates: list[Candidate], task: Task) -> str:
    """What was recognised, and what is missing of it or which tasks it serves."""
    incomplete = [candidate for candidate in candidates if candidate.missing]
    incomplete = [each for each in incomplete if task.name in formats()[each.format].tasks] or incomplete
    served = [candidate for candidate in candidates if candidate.tasks and not candidate.missing]
    if served:
        tasks = sorted({name for candidate in served for name in candidate.tasks})
        why = [f"; {each.missing}" for each in incomplete if task.name in formats()[each.format].tasks]
        return f"{source} is {_listed(served)}; it serves {' and '.join(tasks)}, not {task.name}{''.join(why[:1])}"
    if incomplete:
        return f"{source}: {'; '.join(f'{candidate}, but {candidate.missing}' for candidate in incomplete)}"
    return f"{source} holds {contents}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _listed(candidates: Iterable[Candidate]) -> str:
    return "; ".join(str(candidate) for candidate in candidates)
