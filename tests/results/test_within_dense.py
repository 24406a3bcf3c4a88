"""The sparsest within a loss of dense: best is within, or nobody is."""

from __future__ import annotations

import random

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.setting import Setting

LOSS = {"metrics": ("val_loss",), "modes": ("min",)}


def grid(losses: dict[tuple[str, float, int], float], within: float | None) -> Comparison:
    """(schedule, sparsity, epochs) -> points lost."""
    names = ("retrain.schedule", "prune.sparsity", "retrain.epochs")
    trials = [
        made.imp(
            str(n),
            dict(zip(names, point, strict=True)),
            schedule=point[0],
            sparsity=point[1],
            epochs=point[2],
            points_lost=lost,
        )
        for n, (point, lost) in enumerate(losses.items())
    ]
    return Comparison.from_table(made.table_of(trials, names, within_dense=within))


def best_setting(comparison: Comparison) -> Setting:
    best = comparison.best
    assert best is not None
    return next(s for s in comparison.settings if best in s.finals)


@pytest.mark.parametrize("summary", [{}, LOSS], ids=["more is better", "less is better"])
@pytest.mark.parametrize("within", [0.0, 0.003, 0.01, 0.02, 1.0])
def test_best_is_the_sparsest_within_or_nobody_is(
    within: float, summary: dict[str, tuple[str, ...]]
) -> None:
    comparison = Comparison.from_table(made.searcher(within_dense=within, **summary))
    best = best_setting(comparison)
    inside = [s for s in comparison.sparse if comparison.is_within(s)]
    if inside:
        assert best.sparsity == max(s.sparsity for s in inside)
        assert comparison.sparsest_within is best
    else:
        lost = {s.label: -comparison.quality(s.change.value) for s in comparison.sparse if s.change}
        assert lost[best.label] == min(lost.values()) > within
        assert comparison.sparsest_within is None
    assert comparison.settings[0] is best is comparison.candidates()[0]


def test_a_study_within_has_both_cases() -> None:
    """So that the law above is not empty."""
    found = [
        Comparison.from_table(made.searcher(within_dense=within)).sparsest_within
        for within in (0.0, 0.01)
    ]
    assert found[0] is None and found[1] is not None


def test_within_is_what_is_lost_at_most_in_the_metrics_own_direction() -> None:
    for within, is_within in ((0.0099, False), (0.0101, True)):
        comparison = grid({("allr", 0.95, 1): 0.01}, within)
        assert comparison.is_within(comparison.settings[0]) is is_within
    comparison = grid({("allr", 0.95, 1): 0.01}, 0.01)
    assert comparison.is_within(comparison.settings[0]), "a difference of floats is rounded"
    better = grid({("allr", 0.95, 1): -0.5}, 0.0)
    assert better.is_within(better.settings[0]), "better than dense loses nothing"


def test_of_equally_sparse_ones_the_better_metric_wins_then_fewer_epochs() -> None:
    points = {("slr", 0.95, 1): 0.004, ("allr", 0.95, 3): 0.002, ("allr", 0.9, 1): 0.0}
    assert best_setting(grid(points, 0.01)).label == "ALLR with 3 epochs"
    assert best_setting(grid(points, None)).goal == 0.9
    nearly = {("slr", 0.95, 1): 0.004, ("allr", 0.94999, 3): 0.002}  # equal to four digits
    assert best_setting(grid(nearly, 0.01)).label == "ALLR with 3 epochs"
    equal = {("allr", 0.95, 3): 0.002, ("llr", 0.95, 1): 0.002}
    assert best_setting(grid(equal, 0.01)).label == "LLR with 1 epoch"


def test_the_table_has_those_within_by_sparsity_then_the_others_by_closeness() -> None:
    comparison = Comparison.from_table(made.searcher(within_dense=0.006))
    inside = [s for s in comparison.settings if comparison.is_within(s)]
    outside = [s for s in comparison.settings if not comparison.is_within(s)]
    assert inside and outside
    assert comparison.settings == (*inside, *outside)
    assert inside == sorted(inside, key=lambda s: -s.sparsity)
    changes = [s.change.value for s in outside if s.change]
    assert changes == sorted(changes, reverse=True)


def test_a_dense_setting_loses_nothing_and_is_no_answer() -> None:
    dense = made.finished("0", {"way": "dense"}, "dense", 0, [made.dense(0)])
    pruned = made.imp("1", {"way": "pruned"}, points_lost=0.3)
    table = made.table_of([dense, pruned], ["way"], within_dense=0.01)
    comparison = Comparison.from_table(table)
    assert [s.label for s in comparison.settings] == ["pruned", "dense"]
    assert best_setting(comparison).label == "pruned"


def test_a_missed_goal_counts_by_the_sparsity_that_it_reached() -> None:
    missed = made.sparsifier("0", {"way": "gmp"}, method="gmp", sparsity=0.95, seed=0, reached=0.93)
    far = made.imp("1", {"way": "imp"}, points_lost=0.2)
    table = made.table_of([missed, far], ["way"], within_dense=0.05)
    assert best_setting(Comparison.from_table(table)).label == "gmp"


def test_each_sparsity_still_has_its_most_accurate_setting() -> None:
    def levels(table: pa.Table) -> list[str]:
        comparison = Comparison.from_table(table)
        return [comparison.candidates(level)[0].label for level in comparison.levels]

    assert levels(made.searcher()) == levels(made.searcher(within_dense=0.005))


def test_without_a_named_loss_the_answer_is_within_a_point() -> None:
    """The goals that were kept are its steps: a hundredth of a percent more is not sparser."""
    draw = random.Random(0)
    for _ in range(50):
        points = {
            (schedule, sparsity, 1): draw.uniform(0, 0.03)
            for schedule in ("allr", "slr")
            for sparsity in (0.9, 0.95, 0.98)
        }
        comparison = grid(points, None)
        close = [
            (sparsity, -lost) for (_, sparsity, _), lost in points.items() if lost <= 1.05 * 0.01
        ]
        sparsest = comparison.sparsest_within
        assert (sparsest is None) == (not close)
        if sparsest is not None and sparsest.change is not None:
            goal, change = max(close)
            assert (sparsest.goal, sparsest.change.value) == (goal, pytest.approx(change))
