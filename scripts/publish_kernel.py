"""Publish the native kernel `kernels/comer-msda` on the Hub."""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import enable_progress_bars
from packaging.version import Version

from build_kernel import PROJECT, is_built, variant_named
from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.errors import UserError
from dense_prediction.hub.upload import Target, describe, upload


DESCRIPTION = """\
Publish the builds of the native kernel in kernels/comer-msda/build as a kernel repository on the Hub, from which
use_deformable_attention_kernel("my-org/comer-msda") and kernels.get_kernel("my-org/comer-msda", version=1) load it.

  python scripts/build_kernel.py
  python scripts/publish_kernel.py my-org/comer-msda --dry-run
  python scripts/publish_kernel.py my-org/comer-msda
  python scripts/publish_kernel.py my-org/comer-msda --update    # on another machine: its variants beside the others

The builds go to the branch of the kernel's version (v1), the card to the main branch as well. A variant that is there
already is replaced, others stay. What is built here runs where the C library is as new as here; kernel-builder
(`nix run .#build-and-copy` in kernels/comer-msda) makes builds for older systems, too.
"""
LICENCE = PROJECT.parents[1] / "LICENSE"
FIRST_HUB = "2.3"
"""The client of the Hub, `huggingface_hub`, that uploads kernels. An older one makes the repository, and no more."""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", metavar="ORG/NAME", help="the kernel repository on the Hub")
    parser.add_argument("--dry-run", action="store_true", help="list what would go up, and send nothing")
    parser.add_argument("--update", action="store_true", help="commit to a repository with files in it")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--build",
        type=Path,
        metavar="FOLDER",
        default=PROJECT / "build",
        help="the built variants (default: kernels/comer-msda/build)",
    )
    return parser.parse_args()


def find_variants(build: Path) -> list[Path]:
    """The folders of the built variants.

    Raises:
        UserError: there is none, or one is not whole or made from other sources.
    """
    variants = sorted(path.parent for path in build.glob("*/metadata.json"))
    if not variants:
        raise UserError(f"{build} has no built variant: python scripts/build_kernel.py makes those of this machine")
    for variant in variants:
        check_variant(variant)
    return variants


def check_variant(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    if not list(folder.glob(f"{metadata['id']}.*.so")) or not (folder / "_ops.py").is_file():
        raise UserError(f"{folder} is no whole build: the library {metadata['id']} or _ops.py is missing")
    # Builds of kernel-builder are named after the commit that they were made from instead of their content.
    is_ours = "scripts/build_kernel.py" in (folder / "_ops.py").read_text()
    if is_ours and not is_built(variant_named(folder.name), folder):
        raise UserError(f"{folder} was built from other sources: run scripts/build_kernel.py again")


def stage(variants: list[Path], builds: Path, front: Path) -> None:
    """Write what goes to the branch of the version into `builds`, and the card for the main branch into `front`."""
    for variant in variants:
        shutil.copytree(variant, builds / "build" / variant.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (builds, front):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / "CARD.md", folder / "README.md")
        shutil.copyfile(LICENCE, folder / "LICENSE")


def check_hub() -> None:
    """Refuse a client of the Hub that could not finish.

    Raises:
        UserError: for it.
    """
    if Version(huggingface_hub.__version__) < Version(FIRST_HUB):
        raise UserError(
            f"huggingface_hub {huggingface_hub.__version__} cannot upload kernels, {FIRST_HUB} can: "
            "pip install --upgrade huggingface_hub datasets trackio"
        )


def main() -> None:
    arguments = parse_arguments()
    variants = find_variants(arguments.build)
    version = json.loads((variants[0] / "metadata.json").read_text())["version"]
    with tempfile.TemporaryDirectory(prefix="publish-kernel-") as temporary:
        builds, front = Path(temporary) / "builds", Path(temporary) / "front"
        stage(variants, builds, front)
        print(f"branch v{version}:\n{describe(builds)}\nbranch main:\n{describe(front)}")
        if arguments.dry_run:
            print("dry run: nothing was sent")
            return
        check_hub()
        enable_progress_bars()
        shared = {"repository": arguments.repository, "kind": "kernel", "private": arguments.private}
        target = Target(revision=f"v{version}", update=arguments.update, **shared)
        outdated = [f"build/{variant.name}/*" for variant in variants]
        print(upload(builds, target, f"Upload version {version}", outdated=outdated))
        print(upload(front, Target(update=True, **shared), "Upload the card"))


if __name__ == "__main__":
    run(main)
