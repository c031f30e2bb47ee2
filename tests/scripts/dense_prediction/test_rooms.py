"""The order of the house: who may import whom, and how much stands in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniature import ROOT


PACKAGE, LIBRARY = ROOT / "modeling_vit_comer", ROOT / "scripts" / "dense_prediction"

ROOMS = [
    "",  # the package's own face: train, evaluate, load_model
    "prediction",
    "training",
    "hub",
    "tailoring",
    "reporting",
    "experiment",
    "evaluation",
    "recipes",
    "models",
    "drawing",
    "batches",
    "data",
]
"""From the top floor down: each may import what stands below it. Files beside the rooms are the ground of all."""

MOST_FOLDERS, MOST_FILES, MOST_FILES_BESIDE = 21, 12, 10
LONGEST_FILE, LONGEST_FUNCTION = 400, 50


def module_name(path: Path, root: Path) -> str:
    """`data.formats.coco` of a file; a folder's `__init__` is called as the folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, Path]:
    return {module_name(path, root): path for path in sorted(root.rglob("*.py"))}


def imported(path: Path, root: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules below `root` that a file imports, at its top or in a function."""
    package = list(path.parent.relative_to(root).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == root.name:
            base = node.module.partition(".")[2]
        else:
            continue
        for alias in node.names:
            name = f"{base}.{alias.name}".strip(".")
            yield name if name in known else base


def floor(module: str) -> int:
    """How far down a module stands."""
    room = module.split(".")[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: set(imported(path, root, known)) - {name} for name, path in known.items()}


@pytest.mark.parametrize("root", [PACKAGE, LIBRARY], ids=lambda root: root.name)
def test_no_circle(root: Path) -> None:
    remaining = graph(root)
    while free := {name for name, needs in remaining.items() if not needs & remaining.keys()}:
        remaining = {name: needs for name, needs in remaining.items() if name not in free}
    assert not remaining, f"these import each other: {sorted(remaining)}"


def test_imports_run_down_only() -> None:
    up = [
        f"{name} imports {other}"
        for name, needs in graph(LIBRARY).items()
        for other in needs
        if floor(other) < floor(name)
    ]
    assert not up


def test_the_package_does_not_know_the_library() -> None:
    for path in PACKAGE.glob("*.py"):
        assert "dense_prediction" not in path.read_text(encoding="utf-8"), path.name


def test_no_room_is_crowded() -> None:
    folders = [folder for folder in LIBRARY.rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    files = {folder: [path for path in folder.iterdir() if path.is_file()] for folder in [LIBRARY, *folders]}
    assert len(folders) <= MOST_FOLDERS, sorted(str(folder.relative_to(LIBRARY)) for folder in folders)
    for folder, inside in files.items():
        most = MOST_FILES_BESIDE if folder == LIBRARY else MOST_FILES
        assert len(inside) <= most, f"{folder.name} holds {len(inside)} files, at most {most}"


def test_no_file_and_no_function_is_long() -> None:
    for path in [*PACKAGE.rglob("*.py"), *LIBRARY.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LONGEST_FILE, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                assert node.end_lineno - first < LONGEST_FUNCTION, f"{path.name}: {node.name}"
