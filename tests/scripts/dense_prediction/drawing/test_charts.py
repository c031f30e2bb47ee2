"""The curve of a run and what was taken for what: that the right places of the pictures are dark."""

import numpy as np
import pytest

from dense_prediction.drawing.charts import PANEL, Axis, curve
from dense_prediction.drawing.matrices import matrix, most_telling


def test_ticks_are_round_numbers_between_the_ends() -> None:
    assert Axis.of([0, 0.43]).ticks() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert Axis.of([0, 3]).ticks(are_whole=True) == [0, 1, 2, 3]
    assert Axis.of([2.0, 500.0], may_be_log=True).ticks() == pytest.approx([2, 5, 10, 20, 50, 100, 200, 500])
    assert Axis.of([7.0, 7.0]).ticks()[0] == 7


def test_numbers_of_many_sizes_stand_on_a_logarithmic_scale_if_they_can() -> None:
    assert Axis.of([1.0, 10.0, 100.0], may_be_log=True).place(10.0) == pytest.approx(0.5)
    for values in ([0.0, 10.0, 100.0], [-1.0, 100.0], [1.0, 2.0]):
        assert Axis.of(values, may_be_log=True).is_log is False


def blue(picture: np.ndarray) -> np.ndarray:
    """Where a line is."""
    return picture[..., 2].astype(int) - picture[..., 0] > 60


def test_a_falling_loss_falls_and_a_rising_score_rises() -> None:
    losses = [(step, 3.0 - step / 50) for step in range(1, 101)]
    picture = np.array(curve(losses, [(50, 0.1), (100, 0.4)], "mean_iou", best_step=100))
    assert picture.shape == (PANEL[1], 2 * PANEL[0], 3)
    for half, falls in ((picture[:, : PANEL[0]], True), (picture[:, PANEL[0] :], False)):
        rows, columns = np.nonzero(blue(half))
        first, last = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
        assert (last > first + 50) if falls else (last < first - 50)


def test_there_may_be_one_of_them_or_a_single_point() -> None:
    assert curve([(1, 2.0)], [], "box_ap").size == PANEL
    assert curve([], [(1, 0.0), (2, 0.0)], "box_ap", 1).size == PANEL
    with pytest.raises(ValueError):
        curve([], [], "box_ap")


@pytest.mark.parametrize("size", [1, 2, 10, 30])
def test_the_diagonal_is_dark_where_all_is_right(size: int) -> None:
    names = [f"a class with the long name {place}" for place in range(size)]
    counts = np.eye(size, dtype=int) * 7
    picture = np.array(matrix(counts / 7, counts, names, names, ("true", "found")))
    dark = blue(picture).mean()
    assert picture[-20, -20, 0] < 120, "the last cell"
    assert dark > 0.5 / size * (size * max(24, min(64, 640 // size))) ** 2 / picture[..., 0].size
    if size > 1:
        off = np.array(matrix(0 * counts, 0 * counts, names, names, ("true", "found")))
        assert not blue(off).any()


def test_of_many_classes_the_confused_ones_are_shown() -> None:
    counts = np.diag(np.arange(100, 150))
    counts[3, 40] = counts[40, 3] = counts[7, 12] = 5
    assert most_telling(counts, 50, 4).tolist() == [3, 7, 12, 40]
    assert most_telling(counts, 50, 60).tolist() == list(range(50))
    missed = np.concatenate([counts, np.zeros((50, 1), dtype=int)], axis=1)
    missed[20, -1] = 100
    assert most_telling(missed, 50, 1).tolist() == [20]
