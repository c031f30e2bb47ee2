"""A card's text taken apart: metadata, prose, code blocks and links, each with its line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK


FENCE = re.compile(r"\s*(```+|~~~+)\s*([\w+-]*)[^`]*$")
HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
# Neither reaches beyond its paragraph.
INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"!?\[(?:(?!\n\s*\n)[^\]])*\]\(\s*<?([^)\s>]*)>?[^)]*\)")
HTML_LINK = re.compile(r"<\w[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']*)", re.IGNORECASE)
ADDRESS = re.compile(r"(?<![(<\"'])\bhttps?://[^\s)>\]\"']+")


class Place(NamedTuple):
    """Something in the prose, and its line."""

    line: int
    text: str


class Heading(NamedTuple):
    level: int
    text: str


class CodeBlock(NamedTuple):
    line: int
    language: str
    code: str


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key that is there twice, of which PyYAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                # The line of --- comes before, and YAML counts from 0.
                raise yaml.YAMLError(f"line {key.start_mark.line + 2}: the key {key.value!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class CardSource:
    text: str

    @cached_property
    def metadata(self) -> Any:
        """What the YAML block holds; None if there is no block.

        Raises:
            yaml.YAMLError: it is no YAML, or has a key twice.
        """
        block = REGEX_YAML_BLOCK.search(self.text)
        return None if block is None else yaml.load(block.group(2), _UniqueKeys)

    @cached_property
    def code_blocks(self) -> list[CodeBlock]:
        return [part for part in self._parts if isinstance(part, CodeBlock)]

    @cached_property
    def headings(self) -> list[Heading]:
        found = [HEADING.match(part.text) for part in self._parts if isinstance(part, Place)]
        return [Heading(len(match[1]), match[2]) for match in found if match]

    @cached_property
    def links(self) -> list[Place]:
        """The targets of links and pictures, and addresses that stand in the text as they are."""
        return [
            *find(LINK, self._prose),
            *find(HTML_LINK, self._prose),
            *find(ADDRESS, blank(LINK, self._prose)),
        ]

    def find_in_prose(self, pattern: re.Pattern[str], *but: re.Pattern[str]) -> list[Place]:
        """What matches outside of code and links, and of what matches `but`."""
        prose = self._prose
        for other in (LINK, *but):
            prose = blank(other, prose)
        return find(pattern, prose)

    @cached_property
    def _prose(self) -> str:
        """The text with blanks in place of metadata and code, every line where it was."""
        lines = [""] * (self.text.count("\n") + 1)
        for part in self._parts:
            if isinstance(part, Place):
                lines[part.line - 1] = part.text
        return blank(INLINE_CODE, "\n".join(lines))

    @cached_property
    def _parts(self) -> list[Place | CodeBlock]:
        return list(self._walk())

    def _walk(self) -> Iterator[Place | CodeBlock]:
        """The lines outside of code, and the code blocks."""
        block = REGEX_YAML_BLOCK.search(self.text)
        first = self.text[: block.end()].count("\n") if block else 0
        lines = iter(enumerate(self.text.split("\n")[first:], start=first + 1))
        for number, text in lines:
            opened = FENCE.match(text)
            if opened is None:
                yield Place(number, text)
                continue
            code: list[str] = []
            for _, inside in lines:
                if inside.strip().startswith(opened[1]):
                    break
                code.append(inside)
            yield CodeBlock(number, opened[2], "\n".join(code) + "\n")


def blank(pattern: re.Pattern[str], text: str) -> str:
    """Blanks in place of what matches, so that everything else stays where it is."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def find(pattern: re.Pattern[str], text: str) -> list[Place]:
    """What matches, or of a pattern with a group what that holds, with its line."""
    return [
        Place(text.count("\n", 0, match.start()) + 1, match[pattern.groups and 1]) for match in pattern.finditer(text)
    ]
