"""Point 8 of the card check: what a reader would copy and run."""

import ast
import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from transformers import TrainingArguments

from modeling_vit_comer import ViTCoMerConfig

from ...recipes.keys import dotted_fields
from .source import CardSource, CodeBlock


ROOT = Path(__file__).parents[4]
SHELLS = ("bash", "sh", "shell", "console")
TAKES_RECIPE_KEYS = ("train", "evaluate", "finetune_with_trainer")
TAKES_CONFIG_FIELDS = ("build_backbone",)
TRAINER_OPTIONS = {field.name for field in fields(TrainingArguments)}


def code_faults(card: CardSource) -> Iterator[str]:
    """(8) A block names its language, Python can be read, and commands name what is there."""
    for block in card.code_blocks:
        for fault in block_faults(block):
            yield f"line {block.line}: {fault}"


def block_faults(block: CodeBlock) -> Iterator[str]:
    if not block.language:
        yield "the code block names no language after its ```"
    elif block.language in ("python", "py"):
        try:
            ast.parse(block.code)
        except SyntaxError as error:
            yield f"the Python cannot be read: {error.msg} in its line {error.lineno}"
    elif block.language in SHELLS:
        for command in block.code.replace("\\\n", " ").splitlines():
            yield from command_faults(command)


def command_faults(command: str) -> Iterator[str]:
    """Of a line of a shell, as far as it calls a script of this repository."""
    if "scripts/" not in command:
        return
    try:
        words = shlex.split(command, comments=True)
    except ValueError as error:
        yield f"{command!r} is no command: {error}"
        return
    position = next((index for index, word in enumerate(words) if re.fullmatch(r"(\./)?scripts/.*\.py", word)), None)
    if position is None:
        return
    script = ROOT / words[position]
    if not script.is_file():
        yield f"there is no {words[position]}"
        return
    for word in words[position + 1 :]:
        yield from word_faults(word, script)


def word_faults(word: str, script: Path) -> Iterator[str]:
    option, key = re.match(r"--[\w-]+", word), re.match(r"([a-z_][\w.]*)=", word)
    if option and not has_option(script, option[0]):
        yield f"scripts/{script.name} has no option {option[0]}"
    elif key:
        yield from key_faults(key[1], script)
    elif word.startswith("configuration/") and not (ROOT / word).exists():
        yield f"there is no {word}"


def has_option(script: Path, option: str) -> bool:
    if script.stem == "finetune_with_trainer" and option.removeprefix("--") in TRAINER_OPTIONS:
        return True
    return f'"{option}"' in script.read_text(encoding="utf-8")


def key_faults(key: str, script: Path) -> Iterator[str]:
    """Of key=value: a key of the recipe or, for some scripts, a field of the backbone's config."""
    if script.stem in TAKES_RECIPE_KEYS:
        # What stands below a field that is a mapping has no list of its own.
        known = {name for name, _ in dotted_fields()}
        is_known = any(key == name or key.startswith(f"{name}.") for name in known)
    elif script.stem in TAKES_CONFIG_FIELDS:
        known = {field.name for field in fields(ViTCoMerConfig)}
        is_known = key in known
    else:
        return
    if not is_known:
        close = difflib.get_close_matches(key, known, n=2)
        yield f"scripts/{script.name} has no key {key}" + (f"; did you mean {' or '.join(close)}?" if close else "")
