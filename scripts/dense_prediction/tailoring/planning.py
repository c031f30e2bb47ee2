"""From what was asked to a recipe: as it is written, as a run has it already, or as the data make it."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from modeling_vit_comer.trunk_sources import image_statistics

from ..data.inspection.findings import check
from ..data.inspection.looking import Inspection, inspect
from ..data.inspection.traits import Traits, find_traits
from ..data.loading import Data, load_data
from ..data.options import DataOptions
from ..data.recognition import recognize
from ..data.samples import FirstSamples, Stream
from ..errors import UserError
from ..evaluation.tasks import find_task
from ..experiment import Opened, from_main_process
from ..options import Tree, flatten
from ..recipes.loading import load_recipe
from ..recipes.recipe_file import read_settings
from ..recipes.runs import CHECKPOINTS, RECIPE
from ..recipes.schema import Recipe
from ..recipes.settings import Setting
from .case import Case, Rule
from .measuring import find_device, measure_cost
from .requests import Request
from .table import BEFORE_ALL, OF_PICTURES, OF_STEPS, ask


SPLITS = ("train_split", "validation_split")


@dataclass(frozen=True)
class Plan:
    """What a run goes by.

    Attributes:
        settings: what of the recipe follows from the data, and why; first the format that was recognised, if one was.
        opened: the data, if they have been opened.
    """

    recipe: Recipe
    settings: Sequence[Setting] = ()
    opened: Opened | None = None


def plan_together(request: Request, tell: Callable[[Plan], None] | None = None) -> Plan:
    """As `plan`, made by the main process for all, which alone has opened the data.

    Args:
        tell: is called with it there.
    """
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # as Accelerate starts it later
    opened: list[Opened | None] = [None]

    def work() -> Plan:
        made = plan(request)
        opened[0] = made.opened
        if tell is not None:
            tell(made)
        return dataclasses.replace(made, opened=None)

    return dataclasses.replace(from_main_process(work), opened=opened[0])


def plan(request: Request) -> Plan:
    """What a run has to go by that was asked for so.

    Where data are to be recognised and the output folder holds a run that is not given up, nothing is derived again.

    Raises:
        UserError: the data cannot be recognised, or something in them or in the changes is wrong.
    """
    if request.data is None:
        return Plan(request.recipe, read_settings(Path(request.source).expanduser()))  # of a run's folder
    found = recognize(request.data, find_task(request.recipe.task), request.format)
    found = dataclasses.replace(found, data=_from_anywhere(found.data))
    if (begun := _begun(request, found.data)) is not None:
        return begun
    recognized = Setting("data.format", found.data["format"], found.words)
    if not request.is_task:
        recipe = load_recipe(request.base, request.overrides, data=found.data, name=request.name)
        return Plan(recipe, [recognized])
    made = tailor(request, found.data)
    return dataclasses.replace(made, settings=[recognized, *made.settings])


def tailor(request: Request, data: Tree) -> Plan:
    """A recipe whose settings follow from the data, as far as they were not typed.

    Args:
        data: what a recipe says of the data.
    """
    tailoring = _Tailoring(request, data)
    tailoring.apply(OF_PICTURES)
    cost = measure_cost(tailoring.recipe(), tailoring.opened, tailoring.case.device)
    tailoring.case = dataclasses.replace(tailoring.case, cost=cost)
    tailoring.apply(OF_STEPS)
    recipe = tailoring.recipe()
    return Plan(recipe, tailoring.settings, opened=_as_asked(tailoring.opened, recipe.data))


class _Tailoring:
    """A case and what the rules have said of it so far."""

    def __init__(self, request: Request, data: Tree) -> None:
        self.request, self.data = request, data
        self.settings = [setting for setting in BEFORE_ALL if setting.key not in request.typed]
        asked = self.recipe()
        self.opened, recipe = _open(asked)
        self.data = data | _seen(asked.data, recipe.data)
        self.case = Case(
            task=recipe.task,
            labels=tuple(self.opened.data.labels),
            traits=_traits(self.opened.data, recipe),
            most=max((facts.most for facts in self.opened.inspection.facts.values()), default=0),
            validation=_length(self.opened.data),
            values=flatten(dataclasses.asdict(recipe)),
            typed=frozenset(request.typed),
            device=find_device(),
            statistics=_statistics(recipe.backbone.trunk),
        )

    def apply(self, rules: Iterable[Rule]) -> None:
        """Ask the rules."""
        derived, self.case = ask(rules, self.case)
        self.settings += derived

    def recipe(self) -> Recipe:
        """With what was derived so far, and above it what was typed."""
        derived = [f"{setting.key}={json.dumps(setting.value)}" for setting in self.settings]
        changes = [*self.request.neutral, *derived, *self.request.overrides]
        return load_recipe(self.request.base, changes, data=self.data, name=self.request.name)


def _open(recipe: Recipe) -> tuple[Opened, Recipe]:
    """The data, looked at, and the recipe with what the label files decide of them."""
    task = find_task(recipe.task)
    data = load_data(recipe.data, task)
    inspection = inspect(recipe.data, task, data, SPLITS)
    check(inspection, data.labels)
    if inspection.options != recipe.data:
        recipe = dataclasses.replace(recipe, data=inspection.options)
        data = load_data(recipe.data, task)
    return Opened(data, inspection), recipe


def _as_asked(opened: Opened, options: DataOptions) -> Opened:
    """The data as they are opened by options that were derived after they had been opened."""
    data, most = opened.data, options.max_validation_samples
    if most is not None and len(data.validation) > most:
        data = dataclasses.replace(data, validation=FirstSamples(data.validation, most))
    return Opened(data, Inspection(options, opened.inspection.facts))


def _seen(asked: DataOptions, found: DataOptions) -> Tree:
    """The fields that a look at the data has filled in."""
    before, after = dataclasses.asdict(asked), dataclasses.asdict(found)
    return {key: value for key, value in after.items() if value != before[key]}


def _traits(data: Data, recipe: Recipe) -> Traits:
    traits = find_traits(data.train, len(data.labels))
    if traits is None:
        raise UserError(f"data.train_split={recipe.data.train_split}: all samples that were read are bad")
    return traits


def _statistics(trunk: str | None) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation that a trunk's pictures had, if it says so."""
    try:
        return None if trunk is None else image_statistics(trunk)
    except (OSError, ValueError, TypeError):  # what is wrong with it is said when the backbone is built
        return None


def _length(data: Data) -> int | None:
    return None if isinstance(data.validation, Stream) else len(data.validation)


def _begun(request: Request, data: Tree) -> Plan | None:
    """What the run goes by that is to go on; None where a new one begins.

    A run that was killed before its first checkpoint begins again as it was, unless other changes are typed now.
    """
    recipe = request.recipe
    is_here = recipe.resume is None or recipe.resume == "auto"
    folder = Path(recipe.output if is_here else str(recipe.resume)).absolute()
    folder = folder if is_here else folder.parents[1]  # of OUT/checkpoints/step_N
    if not (folder / RECIPE).is_file() or (recipe.overwrite and is_here):
        return None
    written = load_recipe(folder)
    changes = [f"output={json.dumps(recipe.output)}", *_moved(written, data), *request.overrides]
    continued = load_recipe(folder, changes)
    if any((folder / CHECKPOINTS).glob("step_*")) or _of_one_run(continued) == _of_one_run(written):
        return Plan(continued, read_settings(folder))
    return None


def _from_anywhere(data: Tree) -> Tree:
    """With an absolute path, by which the output folder alone is enough wherever a later command runs."""
    path = Path(data["path"]).expanduser()
    return data | {"path": str(path.absolute())} if path.exists() else data


def _moved(written: Recipe, data: Tree) -> list[str]:
    """Where the data are now, if they were elsewhere."""
    is_same = Path(written.data.path).expanduser().resolve() == Path(data["path"]).expanduser().resolve()
    return [] if is_same else [f"data.path={json.dumps(data['path'])}"]


def _of_one_run(recipe: Recipe) -> Recipe:
    """Without how it was started."""
    return dataclasses.replace(recipe, output="", resume=None, overwrite=False)
