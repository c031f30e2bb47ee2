"""Under which licence a repository goes up. Weights inherit that of the plain ViT that they were trained from."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import timm
from transformers import PreTrainedConfig

from ..errors import UserError
from .cards.metadata import KNOWN


PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")
"""Licences of weights under which what is trained from them may be published under Apache-2.0."""

OF_TRANSFORMERS = {"dinov3_vit": "dinov3-license"}
"""Model types of transformers whose weights are under a licence of their own, and its name."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Licence:
    """A licence by its name on the Hub ("mit"), or the name of one that the Hub does not list, and its text."""

    name: str
    text: Path


def our_licence() -> Path:
    """The text of this project's own licence: in a checkout, or as it was installed."""
    in_checkout = Path(__file__).parents[3] / "LICENSE"
    if in_checkout.is_file():
        return in_checkout
    return next(Path(file.locate()) for file in metadata.files("vit-comer") or () if file.name == "LICENSE")


def licence_metadata(name: str) -> dict[str, str]:
    """Of a licence in a card; its text goes up as the file LICENSE."""
    if name in KNOWN["licences"]:
        return {"license": name}
    return {"license": "other", "license_name": name, "license_link": "LICENSE"}


def trunk_name(trunk_config: PreTrainedConfig) -> str:
    """timm's name of an architecture, or transformers' model type."""
    return getattr(trunk_config, "architecture", None) or trunk_config.model_type


def inherited_licence(trunk_config: PreTrainedConfig) -> str | None:
    """What weights trained from a trunk stay under; None where Apache-2.0 may be theirs.

    A name of timm is that of weights; without a tag it means those of timm's default tag.
    """
    name = trunk_name(trunk_config)
    if name == trunk_config.model_type:
        return OF_TRANSFORMERS.get(name)
    weights = timm.get_pretrained_cfg(name)
    licence = (weights and weights.license) or UNKNOWN
    return None if licence in PERMISSIVE else licence


def find_licence(trunk_config: PreTrainedConfig, name: str | None, text: Path | None) -> Licence:
    """The licence that was asked for, else Apache-2.0, that of the code.

    Raises:
        UserError: only one of name and text is given, the text is missing, or neither is given although weights of
            this trunk are under a licence that is not permissive, or under none that is known.
    """
    trunk, inherited = trunk_name(trunk_config), inherited_licence(trunk_config)
    if name is None and text is None and inherited is None:
        return Licence("apache-2.0", our_licence())
    if name is None or text is None:
        raise UserError(f"{_demand(trunk, inherited)} and --license-file FILE with its text")
    if not text.is_file():
        raise UserError(f"--license-file: there is no file {text}")
    return Licence(name, text)


def _demand(trunk: str, inherited: str | None) -> str:
    if inherited is None:
        return "one needs the other: give --license NAME"
    if inherited == UNKNOWN:
        return f"weights trained from {trunk} inherit its licence, which timm does not know: give --license NAME"
    return f"weights trained from {trunk} inherit its licence: give --license {inherited}"
