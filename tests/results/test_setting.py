"""Means over seeds, and when a goal sparsity counts as kept."""

from __future__ import annotations

import math

import made_studies as made
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.setting import is_as_sparse, mean_of, means_by_cycle


def test_mean_and_sample_standard_deviation() -> None:
    mean = mean_of([0.1, 0.2, None, 0.6])
    assert mean is not None
    assert mean.value == pytest.approx(0.3)
    assert mean.spread == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (mean.num_seeds, mean.low) == (3, pytest.approx(0.3 - math.sqrt(0.07)))


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    mean = mean_of([0.5])
    assert mean is not None
    assert mean.spread is None
    assert mean.low == mean.high == 0.5
    assert mean_of([None]) is None


@pytest.mark.parametrize(
    ("sparsity", "goal", "is_kept"),
    [(0.95, 0.95, True), (0.9455, 0.95, True), (0.94, 0.95, False), (0.98, 0.99, False)],
)
def test_goals_are_kept_in_the_weights_that_remain(
    sparsity: float, goal: float, is_kept: bool
) -> None:
    assert is_as_sparse(sparsity, goal) is is_kept


def test_cycles_are_averaged_over_seeds() -> None:
    two = next(s for s in Comparison.from_table(made.cycles()).settings if len(s.rows) == 2 * 3)
    sparsity = means_by_cycle(two, "sparsity")
    assert list(sparsity) == [0, 1, 2]
    assert sparsity[1].value == pytest.approx(1 - 0.02**0.5)
    assert list(means_by_cycle(two, "d1")) == [1, 2]
