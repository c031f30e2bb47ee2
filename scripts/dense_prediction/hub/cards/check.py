"""What is wrong with a card, in ten points; the Hub itself accepts nearly everything in silence."""

from collections.abc import Collection
from itertools import chain
from pathlib import Path

from .body import link_faults, template_faults
from .code_blocks import code_faults
from .metadata import metadata_faults
from .numbers import number_faults
from .source import CardSource


def check_card(text: str, folder: Path, sections: Collection[str] = ()) -> list[str]:
    """The faults of a card, each with its place; none of a good one.

    1. The metadata are a YAML mapping without doubled keys,
    2. and have no key that the Hub does not know.
    3. The licence is known, or named and linked to.
    4. So are the pipeline and the library.
    5. The model-index is complete, its metrics are finite numbers.
    6. base_model and datasets are names of repositories.
    7. Links lead somewhere.
    8. Code blocks name their language; Python can be read, and commands name scripts and options that exist.
    9. Nothing of a template is left over; there is one title, and the sections that are asked for.
    10. Every number in the text is in a result file that the card links to, as precisely as it is printed.

    Args:
        folder: where the card is, which its relative links start from.
        sections: headings of the second level that must be there.
    """
    card = CardSource(text)
    points = [
        metadata_faults(card, folder),
        link_faults(card, folder),
        code_faults(card),
        template_faults(card, sections),
        number_faults(card, folder),
    ]
    return list(chain.from_iterable(points))
