"""Numbers as people read them."""

from __future__ import annotations

import made_studies as made
import pytest

from rayprune.report.numbers import (
    change,
    change_name,
    duration,
    metric_value,
    num_seeds,
    percent,
    ratio,
    short_change,
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
