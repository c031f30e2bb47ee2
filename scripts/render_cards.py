"""Write the cards in `hub_cards/` from their templates and result files, or check them."""

import argparse

from dense_prediction.atomic_files import write_text
from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.errors import UserError
from dense_prediction.hub.cards.card import CARDS
from dense_prediction.hub.cards.rendering import card_faults, render_cards, stale_cards


DESCRIPTION = """\
Write a card for each preset of configuration/backbones and each trained head of hub_cards/heads.yaml. All numbers come
from hub_cards/results, and every card is checked as push_to_hub.py checks one.

  python scripts/render_cards.py
  python scripts/render_cards.py --check    # writes nothing; fails if a card is not what would be written, or faulty
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if something would change")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cards = render_cards()
    if faults := card_faults(cards):
        raise UserError("\n".join(faults))
    if arguments.check:
        if stale := stale_cards(cards):
            raise UserError(f"not up to date: {', '.join(stale)}; run scripts/render_cards.py")
    else:
        for name, text in cards.items():
            write_text(CARDS / f"{name}.md", text)
    print(f"{len(cards)} cards in {CARDS}")


if __name__ == "__main__":
    run(main)
