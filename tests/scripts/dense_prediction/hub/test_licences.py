"""Which licence weights inherit from their trunk, and under which they may therefore go up."""

from pathlib import Path

import pytest
import timm
from transformers import Dinov2Config, DINOv3ViTConfig, PreTrainedConfig
from transformers.models.timm_wrapper import TimmWrapperConfig

from dense_prediction.errors import UserError
from dense_prediction.hub.cards.card import find_trunk
from dense_prediction.hub.licences import find_licence, inherited_licence, trunk_name


NO_WEIGHTS = "vit_small_patch16_18x2_224"
"""An architecture that timm has no weights of, so that its user has trained it."""

FREE = [
    "vit_small_patch14_dinov2.lvd142m",
    "deit_small_patch16_224.fb_in1k",
    "eva02_base_patch14_224.mim_in22k",  # MIT
    "vit_small_patch16_224",  # timm's default tag is AugReg's
    NO_WEIGHTS,
]
BOUND = {
    "vit_base_patch16_224.mae": "cc-by-nc-4.0",
    "vit_base_patch16_clip_224.metaclip_400m": "cc-by-nc-4.0",
    "vit_small_patch16_dinov3.lvd1689m": "dinov3-license",
    "vit_small_patch16_dinov3": "dinov3-license",
    "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m": "fair-noncommercial-research-license",
    "vit_tiny_patch16_dinov3_qkvb": "fair-noncommercial-research-license",  # its only tag
    "vit_base_mci_224.apple_mclip": "apple-amlr",
}
UNSAID = "vit_base_patch16_224.bamboo"


def trunk(architecture: str) -> PreTrainedConfig:
    return TimmWrapperConfig(architecture=architecture)


def skip_unless_known(architecture: str) -> None:
    """The oldest timm that we run with knows fewer weights than these."""
    if not timm.is_model_pretrained(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")


def test_the_examples_are_what_they_are_here_for() -> None:
    assert timm.get_pretrained_cfg("eva02_base_patch14_224.mim_in22k").license == "mit"
    assert timm.is_model(NO_WEIGHTS) and not timm.is_model_pretrained(NO_WEIGHTS)


def test_the_example_without_a_licence_has_none() -> None:
    skip_unless_known(UNSAID)
    assert timm.get_pretrained_cfg(UNSAID).license is None


@pytest.mark.parametrize("config", [*map(trunk, FREE), Dinov2Config()], ids=trunk_name)
def test_permissive_weights_go_up_under_apache(config: PreTrainedConfig) -> None:
    assert inherited_licence(config) is None
    assert find_licence(config, None, None).name == "apache-2.0"


BOUND_CONFIGS = [*((trunk(name), licence) for name, licence in BOUND.items()), (DINOv3ViTConfig(), "dinov3-license")]


@pytest.mark.parametrize(("config", "licence"), BOUND_CONFIGS, ids=str)
def test_other_weights_go_up_under_their_own(config: PreTrainedConfig, licence: str, tmp_path: Path) -> None:
    if isinstance(config, TimmWrapperConfig):
        skip_unless_known(config.architecture)
    with pytest.raises(UserError, match=f"inherit its licence: give --license {licence} and --license-file"):
        find_licence(config, None, None)
    text = tmp_path / "LICENSE"
    text.write_text("theirs")
    assert find_licence(config, licence, text).name == licence


def test_an_unknown_licence_is_asked_for() -> None:
    skip_unless_known(UNSAID)
    with pytest.raises(UserError, match="inherit its licence, which timm does not know: give --license NAME and"):
        find_licence(trunk(UNSAID), None, None)


def test_cards_know_eupe_from_dinov3() -> None:
    eupe, dinov3 = (find_trunk(f"vit_tiny_patch16_dinov3_qkvb.{tag}") for tag in ("eupe_lvd1689m", "lvd1689m"))
    assert (eupe.title, dinov3.title) == ("EUPE", "DINOv3")
    assert "Noncommercial" in eupe.licence and "DINOv3" not in eupe.licence
