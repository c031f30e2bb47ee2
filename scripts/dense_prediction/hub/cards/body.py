"""Points 7 and 9 of the card check: links, what a template leaves behind, and the sections."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from .source import CardSource, Heading


PLACEHOLDER_HOST = re.compile(
    r"^(localhost|127\..*|0\.0\.0\.0|(.*\.)?example\.(com|org|net)|your[-.].*|.*\.(test|invalid))$"
)
LEFTOVER = re.compile(
    r"\{\{|\}\}|\{%|%\}|\bNone\b(?! of\b)|\bnan\b|\bNaN\b|\bTODO\b|\bFIXME\b|More Information Needed|\bUndefined\b"
)


def link_faults(card: CardSource, folder: Path) -> Iterator[str]:
    """(7)"""
    anchors = {anchor_of(heading.text) for heading in card.headings}
    for line, target in card.links:
        if reason := why_dead(target, folder, anchors):
            yield f"line {line}: the link {target!r} {reason}"


def why_dead(target: str, folder: Path, anchors: Collection[str]) -> str | None:
    if target.startswith("#"):
        return None if target[1:] in anchors else f"leads to no heading; there are {', '.join(sorted(anchors))}"
    address = split_address(target)
    if address.scheme == "mailto":
        return None
    if address.scheme or address.netloc:
        if address.scheme != "https" or not address.hostname:
            return "must be https"
        return "leads to a placeholder" if PLACEHOLDER_HOST.match(address.hostname) else None
    return "leads to no file beside the card" if linked_file(target, folder) is None else None


def linked_file(target: str, folder: Path) -> Path | None:
    """What a relative link leads to, if that is there, and not outside of the folder that the card is in."""
    address = split_address(target)
    if address.scheme or address.netloc or not address.path:
        return None
    found = folder / address.path
    return found if found.exists() and found.resolve().is_relative_to(folder.resolve()) else None


def split_address(target: str) -> SplitResult:
    try:
        return urlsplit(target)
    except ValueError:  # brackets that are no IPv6 address
        return SplitResult(scheme="invalid", netloc="", path="", query="", fragment="")


def anchor_of(heading: str) -> str:
    """As the Hub and GitHub make it from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def template_faults(card: CardSource, sections: Collection[str]) -> Iterator[str]:
    """(9)"""
    for line, leftover in card.find_in_prose(LEFTOVER):
        yield f"line {line}: {leftover!r} is left over from a template"
    for block in card.code_blocks:
        if block.language != "bibtex" and (found := re.search(r"\{\{.*?\}\}|\{%", block.code)):
            yield f"line {block.line}: {found[0]!r} in the code is left over from a template"
    titles = sum(heading.level == 1 for heading in card.headings)
    if titles != 1:
        yield f"the card needs one title, a line with a single #, and has {titles}"
    for section in sections:
        if Heading(2, section) not in card.headings:
            yield f"the section '## {section}' is missing"
