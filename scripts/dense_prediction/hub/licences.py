"""Under which licence a repository goes up. Weights inherit that of the plain ViT that they were trained from."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from ..errors import UserError
from .card_metadata import KNOWN


OURS = Path(__file__).parents[3] / "LICENSE"
OF_TRUNKS = {"dinov3": "dinov3-license"}
"""Names of trunks whose weights are under a licence of their own, and its name."""


@dataclass(frozen=True)
class Licence:
    """A licence by its name on the Hub ("mit"), or the name of one that the Hub does not list, and its text."""

    name: str
    text: Path


def licence_metadata(name: str) -> dict[str, str]:
    """Of a licence in a card; its text goes up as the file LICENSE."""
    if name in KNOWN["licences"]:
        return {"license": name}
    return {"license": "other", "license_name": name, "license_link": "LICENSE"}


def trunk_name(trunk_config: PreTrainedConfig) -> str:
    """timm's name of an architecture, or transformers' model type."""
    return getattr(trunk_config, "architecture", None) or trunk_config.model_type


def find_licence(trunk_config: PreTrainedConfig, name: str | None, text: Path | None) -> Licence:
    """The licence that was asked for, else Apache-2.0, that of the code.

    Raises:
        UserError: only one of name and text is given, the text is missing, or neither is given although weights of
            this trunk are under another licence than Apache-2.0.
    """
    trunk = trunk_name(trunk_config)
    inherited = next((licence for part, licence in OF_TRUNKS.items() if part in trunk), None)
    if name is None and text is None and inherited is None:
        return Licence("apache-2.0", OURS)
    if name is None or text is None:
        reason = f"weights trained from {trunk} inherit its licence" if inherited else "one needs the other"
        raise UserError(f"{reason}: give --license {inherited or 'NAME'} and --license-file FILE with its text")
    if not text.is_file():
        raise UserError(f"--license-file: there is no file {text}")
    return Licence(name, text)
