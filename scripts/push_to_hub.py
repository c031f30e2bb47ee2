"""Publish a model on the Hub so that it loads where our package is not installed."""

import argparse
import tempfile
from pathlib import Path

from huggingface_hub.utils import enable_progress_bars

from dense_prediction.command_line import ArgumentParser, run, without_their_progress_bars
from dense_prediction.hub.model_repository import OUTDATED, ModelFiles, stage_model
from dense_prediction.hub.upload import Target, describe, upload


DESCRIPTION = """\
Publish a backbone or a trained model on the Hub. Anybody with torch, timm and transformers loads it from there with
trust_remote_code=True: the code goes up with the weights.

  vit-comer push vit-comer-s-dinov2 my-org/vit-comer-s-dinov2 --dry-run
  vit-comer push outputs/camvid/best_model my-org/upernet-vit-comer-s-camvid --private
  vit-comer push outputs/camvid/best_model my-org/upernet-vit-comer-s-camvid --update --card CARD.md

FOLDER is what build_backbone.py, convert_official_checkpoint.py and train.py (OUTPUT/best_model) write. What goes up:
the weights, the config, the code, preprocessor_config.json, LICENSE, README.md and the results of the training, if
there are any, of whose absolute paths only the last part stays. The card is checked before; a faulty one is refused
with a line for each fault. It is one commit; after an interruption run the same command again, and what has arrived is
not sent again. Log in before with `hf auth login`, or set HF_TOKEN.
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a saved model with its image processor")
    parser.add_argument("repository", metavar="ORG/NAME", help="the repository on the Hub")
    parser.add_argument("--dry-run", action="store_true", help="list what would go up, and send nothing")
    parser.add_argument("--update", action="store_true", help="commit a new version to a repository with files in it")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch, made if it is not there")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request with the commit")
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE.md",
        help="the card, with the files it links to (default: FOLDER/README.md, else one is made)",
    )
    parser.add_argument("--results", type=Path, metavar="FILE.json", help="the training's results (default: found)")
    parser.add_argument(
        "--license",
        metavar="NAME",
        help="of the weights, as the Hub knows it (default: apache-2.0, where the plain ViT's own licence allows it)",
    )
    parser.add_argument("--license-file", type=Path, metavar="FILE", help="its text")
    parser.add_argument(
        "--data-license", metavar="NAME", help="of the data that the model was trained on, for the card that is made"
    )
    parser.add_argument(
        "--max-shard-size",
        metavar="SIZE",
        default=ModelFiles.max_shard_size,
        help="cut the weights into files of this size (default: %(default)s)",
    )
    parser.add_argument("--message", default="Upload ViT-CoMer", help="of the commit (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.create_pr and arguments.revision is not None:
        parser.error("a pull request is made against the main branch: leave out --revision or --create-pr")
    return arguments


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    files = ModelFiles(
        card=arguments.card,
        licence=arguments.license,
        licence_text=arguments.license_file,
        data_licence=arguments.data_license,
        results=arguments.results,
        max_shard_size=arguments.max_shard_size,
    )
    target = Target(
        repository=arguments.repository,
        revision=arguments.revision,
        private=arguments.private,
        update=arguments.update,
        create_pr=arguments.create_pr,
    )
    with tempfile.TemporaryDirectory(prefix="push-to-hub-") as temporary:
        staged = Path(temporary)
        has_card = stage_model(arguments.folder, arguments.repository, files, staged)
        print(describe(staged))
        if arguments.dry_run:
            print("dry run: nothing was sent")
            return
        enable_progress_bars()
        kept = () if has_card else ("README.md",)
        print(upload(staged, target, arguments.message, outdated=OUTDATED, keep=kept))


if __name__ == "__main__":
    run(main)
