"""A task of the user's: which way is better, and what reads in percent, travel with the table."""

from __future__ import annotations

from typing import Any

import made_studies as made
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.table import read_metadata

BY_RMSE: dict[str, Any] = {"metrics": ("val_rmse",), "modes": ("min",)}
BY_R2: dict[str, Any] = {"metrics": ("val_r2",), "modes": ("max",)}


def compared(**summary: Any) -> Comparison:
    return Comparison.from_table(made.of_own_task(**summary))


def test_which_metrics_are_better_low_lies_in_the_table() -> None:
    summary, _ = read_metadata(made.of_own_task(**BY_R2))
    assert summary.lower_is_better == ("loss", "rmse")
    summary, _ = read_metadata(made.schedules_grid())
    assert summary.lower_is_better == ("loss",)


def test_settings_rank_alike_by_a_metric_and_by_its_opposite() -> None:
    by_rmse, by_r2 = compared(**BY_RMSE), compared(**BY_R2)
    assert [s.label for s in by_rmse.settings] == [s.label for s in by_r2.settings]
    assert by_rmse.best is not None and by_r2.best is not None
    assert by_rmse.best["trial"] == by_r2.best["trial"]


def test_only_a_fraction_of_which_more_is_better_is_in_percent() -> None:
    assert compared(**BY_R2).is_fraction
    assert not compared(**BY_RMSE).is_fraction
    small = compared(lower="error", higher="r2", metrics=("val_r2",), modes=("max",))
    assert not small.is_in_percent("val_error")
    lossless = compared(**BY_R2, lower_is_better=("loss", "r2"))
    assert not lossless.is_fraction, "values in [0, 1] alone make no percentage"


@pytest.mark.parametrize("within", [0.0, 0.01, 0.03, 1.0])
def test_within_a_loss_of_dense_is_the_same_question_turned(within: float) -> None:
    by_rmse, by_r2 = (
        compared(**BY_RMSE, within_dense=within),
        compared(**BY_R2, within_dense=within),
    )
    assert [(s.label, s.goal) for s in by_rmse.settings] == [
        (s.label, s.goal) for s in by_r2.settings
    ]
    assert [by_rmse.is_within(s) for s in by_rmse.settings] == [
        by_r2.is_within(s) for s in by_r2.settings
    ]


def test_differences_are_of_its_twin_on_the_test_split() -> None:
    by_rmse = compared(**BY_RMSE)
    assert by_rmse.compared_by == "test_rmse"
    for level, reference in by_rmse.references.items():
        for setting, difference in by_rmse.differences_to(reference):
            assert difference is not None and setting.goal == level
            assert by_rmse.verdict(difference) != "better", "the reference is the best"


def test_a_metric_that_the_task_never_measured_has_no_value() -> None:
    """As in what ran before the study named it."""
    comparison = compared(metrics=("val_f1",), modes=("max",))
    assert comparison.best is None and comparison.dense is None
    assert len(comparison.settings) == 4
    assert comparison.measured == ("val_r2", "val_rmse")
