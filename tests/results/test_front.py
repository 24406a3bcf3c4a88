"""The Pareto front: nobody on it is beaten, everybody off it is."""

from __future__ import annotations

import random

import made_studies as made
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.front import dominates, undominated
from rayprune.results.setting import Setting

TWO = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}
THREE = {
    "metrics": ("val_loss", "total_epochs", "theoretical_speedup"),
    "modes": ("min", "min", "max"),
}


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_nobody_on_the_front_is_dominated_and_everybody_off_it_by_one_on_it(goals: int) -> None:
    draw = random.Random(goals)
    for size in range(40):
        points = [tuple(float(draw.randint(0, 5)) for _ in range(goals)) for _ in range(size)]
        front = undominated(points)
        assert front == sorted(front)
        for number, point in enumerate(points):
            beaten = any(dominates(points[on], point) for on in front)
            assert beaten == (number not in front)


def test_equal_points_are_both_on_the_front_and_beat_nobody() -> None:
    assert undominated([(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (1.0, 1.0)]) == [0, 1, 2]
    assert not dominates((1.0, 2.0), (1.0, 2.0))
    assert undominated([]) == []


@pytest.mark.parametrize("goals", [TWO, THREE])
def test_the_front_of_a_study_is_that_of_its_means_best_in_the_first_goal_first(
    goals: dict[str, tuple[str, ...]],
) -> None:
    comparison = Comparison.from_table(made.searcher(**goals))

    def point(setting: Setting) -> tuple[float, ...]:
        means = [setting.mean(goal) for goal in goals["metrics"]]
        pairs = zip(means, goals["modes"], strict=True)
        return tuple(m.value if mode == "max" else -m.value for m, mode in pairs if m)

    front = comparison.front
    assert 1 < len(front) < len(comparison.settings)
    assert list(front) == sorted(front, key=point, reverse=True)
    for setting in comparison.settings:
        beaten = any(dominates(point(on), point(setting)) for on in front)
        assert beaten == (setting not in front)


def test_with_one_goal_there_is_no_front() -> None:
    assert Comparison.from_table(made.schedules_grid()).front == ()


def test_equal_settings_are_both_on_the_front() -> None:
    trials = [
        made.imp(name, {"retrain.schedule": s}, schedule=s, points_lost=0.01)
        for name, s in (("0", "llr"), ("1", "allr"))
    ]
    comparison = Comparison.from_table(made.table_of(trials, ["retrain.schedule"], **TWO))
    assert len(comparison.front) == 2


def test_neither_dense_settings_nor_diverged_ones_are_on_the_front() -> None:
    dense = made.finished("0", {"way": "dense"}, "dense", 0, [made.dense(0)])
    diverged = made.imp("1", {"way": "far"}, sparsity=0.99)
    lost = {**diverged.records[1].metrics, "val_accuracy": float("nan")}
    broken = made.replace(diverged.records[1], metrics=lost)
    diverged = made.replace(diverged, records=(diverged.records[0], broken))
    kept = made.imp("2", {"way": "kept"})
    comparison = Comparison.from_table(made.table_of([dense, diverged, kept], ["way"], **TWO))
    assert len(comparison.settings) == 3
    assert [s.label for s in comparison.front] == ["kept"]
