"""Numbers as people read them."""

from __future__ import annotations

import made_studies as made
import pytest

from rayprune.report.numbers import (
    amount,
    change,
    change_name,
    dense_name,
    duration,
    goal_value,
    metric_value,
    num_seeds,
    percent,
    ratio,
    short_change,
    tolerance,
)
from rayprune.results.comparison import Comparison
from rayprune.results.setting import Mean

ACCURACY = Comparison.from_table(made.one_trial())
LOSS = Comparison.from_table(made.schedules_grid(metrics=("val_loss",), modes=("min",)))


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0.95, "95 %"),
        (0.975, "97.5 %"),
        (0.8643, "86.43 %"),
        (0.9, "90 %"),
        (1.0, "100 %"),
        (0.99999, "99.999 %"),
        (0.0, "0 %"),
    ],
)
def test_percent(fraction: float, shown: str) -> None:
    assert percent(fraction) == shown


@pytest.mark.parametrize(
    ("value", "accuracy", "loss"),
    [
        (0.886249, "88.62 %", "0.8862"),
        (Mean(0.88625, None, 1), "88.62 %", "0.8862"),
        (Mean(0.88625, 0.00141, 3), "88.62 ± 0.14 %", "0.8862 ± 0.0014"),
        (None, "–", "–"),
    ],
)
def test_a_metric_is_in_percent_and_a_loss_is_not(
    value: Mean | float | None, accuracy: str, loss: str
) -> None:
    assert metric_value(ACCURACY, value) == accuracy
    assert metric_value(LOSS, value) == loss
    assert metric_value(ACCURACY, value, unit="") == accuracy.removesuffix(" %")


@pytest.mark.parametrize(
    ("mean", "points", "loss"),
    [
        (Mean(-0.00832, None, 1), "-0.83", "-0.00832"),
        (Mean(0.002, 0.0011, 3), "+0.20 ± 0.11", "+0.002 ± 0.0011"),
        (Mean(-0.00001, None, 1), "0.00", "-1e-05"),
        (None, "–", "–"),
    ],
)
def test_changes_are_in_points(mean: Mean | None, points: str, loss: str) -> None:
    assert change(ACCURACY, mean) == points
    assert change(LOSS, mean) == loss
    assert (change_name(ACCURACY), change_name(LOSS)) == ("vs dense, points", "vs dense")


@pytest.mark.parametrize(
    ("mean", "shown"),
    [
        (Mean(-0.0083, None, 1), "-0.8"),
        (Mean(-0.0003, None, 1), "-0.03"),
        (Mean(-0.0083, 0.0002, 3), "-0.83 ± 0.02"),
    ],
)
def test_short_changes_hide_no_small_number(mean: Mean, shown: str) -> None:
    assert short_change(ACCURACY, mean) == shown


def test_ratios() -> None:
    assert [ratio(value) for value in (4.94, 1.0, None)] == ["4.9x", "1.0x", "–"]


def test_a_single_seed_is_a_word() -> None:
    assert [num_seeds(count) for count in (1, 3)] == ["one seed", "3 seeds"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(59.4, "59 s"), (150, "2 min"), (4000, "1 h 7 min"), (7170, "2 h 0 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("goal", "value", "shown"),
    [
        ("val_accuracy", 0.88624, "88.62 %"),
        ("val_loss", 0.34123, "0.3412"),
        ("sparsity", 0.95, "95 %"),
        ("compression", 20.04, "20.0x"),
        ("theoretical_speedup", 4.94, "4.9x"),
        ("num_nonzero", 42651.4, "42,651"),
        ("flops_nonzero", 1254856.0, "1,254,856"),
        ("total_epochs", 15.0, "15"),
    ],
)
def test_every_goal_has_its_own_unit(goal: str, value: float, shown: str) -> None:
    assert goal_value(ACCURACY, goal, value) == shown


def test_a_tolerated_loss_is_in_points_or_in_the_metrics_own_unit() -> None:
    def said(within: float | None, **summary: tuple[str, ...]) -> str:
        return tolerance(Comparison.from_table(made.schedules_grid(within_dense=within, **summary)))

    loss = {"metrics": ("val_loss",), "modes": ("min",)}
    assert [said(w) for w in (None, 0.01, 0.005, 0.02)] == [
        "one point", "one point", "0.5 points", "2 points",
    ]  # fmt: skip
    assert [said(w, **loss) for w in (None, 0.02)] == ["1 %", "0.02"]


@pytest.mark.parametrize(
    ("value", "digits", "points", "loss"),
    [
        (0.0224, None, "2.2", "0.0224"),
        (0.0003, None, "0.03", "0.0003"),
        (0.0224, 3, "2.240", "0.0224"),
    ],
)
def test_amounts_have_no_sign(value: float, digits: int | None, points: str, loss: str) -> None:
    assert amount(ACCURACY, value, digits) == points
    assert amount(LOSS, value, digits) == loss


def test_what_was_trained_elsewhere_is_no_run() -> None:
    assert dense_name(ACCURACY) == "dense run"
    assert dense_name(Comparison.from_table(made.brought())) == "dense network"
