"""How good predictions are: one metric for each task, all of which add up over images and processes."""

from pathlib import Path

from ...errors import UserError


def metric_script(name: str) -> str:
    """The folder of a metric for the `evaluate` library: `evaluate.load(metric_script("box_ap"))`.

    Args:
        name: "semantic_iou", "box_ap", "mask_ap" or "pq".

    Raises:
        UserError: there is no such metric.
    """
    here = Path(__file__).parent
    # Inside an installed package, and beside the library in a checkout.
    folders = (here / "library", here.parents[2] / "metrics")
    root = next(folder for folder in folders if folder.is_dir())
    known = sorted(path.name for path in root.iterdir() if (path / f"{path.name}.py").is_file())
    if name not in known:
        raise UserError(f"there is no metric {name!r} for evaluate.load; there are {', '.join(known)}")
    return str(root / name)
