"""The fuzz harness for a few seconds: that it still works, and that it would find something."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from fuzz_cpu import Failure, draw, fuzz, is_valid


def changed(kernel: ModuleType, change: Callable[[torch.Tensor], torch.Tensor]) -> SimpleNamespace:
    """The kernel with another result."""

    def operator(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = getattr(kernel.layers.ops, name)(*arguments)
            return tuple(map(change, result)) if isinstance(result, tuple) else change(result)

        return call

    classic = "multi_scale_deformable_attention"
    names = ("comer_msda", "comer_msda_backward", classic, f"{classic}_backward")
    return SimpleNamespace(layers=SimpleNamespace(ops=SimpleNamespace(**{name: operator(name) for name in names})))


def test_nothing_is_found(kernel: ModuleType) -> None:
    counts = fuzz(kernel, seed=0, seconds=5)
    assert counts.errors > 0 and counts.compared > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 1.05 * x, "should be"),
        (lambda x: x.nan_to_num(), "should be nan"),
        (lambda x: x[:, :-1].contiguous(), "expected"),
        (lambda x: x + torch.rand(()), "another result"),
    ],
)
def test_wrong_results_are_found(kernel: ModuleType, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        fuzz(changed(kernel, change), seed=0, seconds=60)


def test_calls_can_be_repeated() -> None:
    assert all(str(draw(1, number)) == str(draw(1, number)) for number in range(50))


def test_both_kinds_of_calls_are_drawn() -> None:
    assert 100 < sum(is_valid(draw(2, number)) for number in range(200)) < 180
