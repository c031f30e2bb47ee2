"""Where the Hub cannot be reached, what the cache lacks is said in one line, at once and before the data are read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import httpx

from dense_prediction import experiment, failures, load_model
from dense_prediction.errors import UserError
from dense_prediction.experiment import Experiment
from dense_prediction.failures import cache_or_hub, hub_answers
from dense_prediction.recipes.loading import load_recipe


class Network:
    """Answers each question with the next of `answers`, and with the last from then on."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    def head(self, url: str, timeout: Any) -> None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


Install = Callable[..., Network]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    def install(*answers: Exception | None) -> Network:
        made = Network(*answers)
        monkeypatch.setattr(failures, "get_session", lambda: made)
        return made

    monkeypatch.setattr(failures.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    yield install
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)


NO_NETWORK = httpx.ConnectError("Name or service not known")
UNREACHED = "the Hub cannot be reached .*, and it is neither a path nor in the cache"


@pytest.mark.parametrize(
    ("answers", "reached", "asked"),
    [
        ([None], True, 1),
        ([httpx.ReadTimeout("slow")], True, 1),
        ([NO_NETWORK, None], True, 2),
        ([httpx.ConnectTimeout("slow"), httpx.ReadTimeout("slow")], True, 2),
        ([NO_NETWORK], False, 2),
        ([httpx.ConnectTimeout("nobody there")], False, 2),
    ],
)
def test_a_slow_network_is_a_network(network: Install, answers: list[Any], reached: bool, asked: int) -> None:
    installed = network(*answers)
    assert hub_answers() is reached
    assert installed.asked == asked


def test_what_is_here_is_asked_of_nobody(network: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = network(NO_NETWORK)
    for source in (None, tmp_path, str(tmp_path)):
        with cache_or_hub(source) as is_offline:
            assert not is_offline
    with cache_or_hub("somebody/something") as is_offline:
        assert is_offline
        assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (True, True)
    assert installed.asked == 2
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with cache_or_hub("somebody/something") as is_offline:
            assert is_offline
    assert installed.asked == 2


WRONG = {
    "a trunk of timm": (
        ["backbone.config=vit-comer-s", "backbone.trunk=timm/vit_small_patch14_dinov2.lvd142m"],
        rf"backbone.trunk=timm/vit_small_patch14_dinov2.lvd142m: {UNREACHED}; .* backbone.trunk=FILE\|FOLDER\|HUB_ID",
    ),
    "a trunk of transformers": (
        ["backbone.config=vit-comer-s", "backbone.trunk=nobody/no-such-deit"],
        rf"backbone.trunk=nobody/no-such-deit: {UNREACHED}; .* backbone.trunk=FILE\|FOLDER\|HUB_ID",
    ),
    "a backbone": (
        ["backbone.config=null", "backbone.checkpoint=nobody/no-such-backbone"],
        f"backbone.checkpoint=nobody/no-such-backbone: no config can be read there: {UNREACHED}",
    ),
    "a head": (
        ["head.checkpoint=nobody/no-such-head"],
        f"head.checkpoint=nobody/no-such-head cannot be loaded: {UNREACHED}",
    ),
}


@pytest.mark.parametrize("by_hand", [False, True], ids=["no network", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_had_is_said_before_the_data_are_read(
    name: str, by_hand: bool, network: Install, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(NO_NETWORK)
    overrides, message = WRONG[name]
    monkeypatch.setattr(experiment, "load_data", lambda *arguments: pytest.fail("the data are read"))
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", by_hand)
        with pytest.raises(UserError, match=message) as caught:
            Experiment(load_recipe(recipe_file, overrides))
    assert "\n" not in str(caught.value)


def test_a_model_and_a_data_set(network: Install, recipe_file: Path) -> None:
    network(NO_NETWORK)
    with pytest.raises(UserError, match=f"cannot load the model in nobody/no-such-model: {UNREACHED}"):
        load_model("nobody/no-such-model")
    with pytest.raises(UserError, match=f"data.path=nobody/no-such-data: .* {UNREACHED}"):
        Experiment(load_recipe(recipe_file, ["data.path=nobody/no-such-data"]))


def test_a_head_of_another_kind_is_said_before_the_data_are_read(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    monkeypatch.setattr(experiment, "load_data", lambda *arguments: pytest.fail("the data are read"))
    with pytest.raises(UserError, match="head.checkpoint=.* is a detr, and head.name is that of a"):
        Experiment(load_recipe(recipe_file, [f"head.checkpoint={tmp_path}"]))
