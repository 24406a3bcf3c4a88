"""What settings are compared with, over which seeds, and what may be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import made_studies as made
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.setting import Setting
from rayprune.results.table import make_table, read_metadata

Losses = Sequence[float]


def compared(
    lost: dict[tuple[str, float], Losses],
    test_lost: dict[str, Losses] | None = None,
    **summary: Any,
) -> Comparison:
    """Schedules at sparsities with the loss of each seed; of some another one on the test split."""
    trials = []
    for (schedule, sparsity), losses in lost.items():
        for seed, points in enumerate(losses):
            values = {"retrain.schedule": schedule, "prune.sparsity": sparsity, "seed": seed}
            trial = made.imp(
                f"{schedule}-{sparsity}-{seed}",
                values,
                schedule=schedule,
                sparsity=sparsity,
                seed=seed,
                points_lost=points,
            )
            if test_lost and schedule in test_lost:
                accuracy = made.dense(seed).metrics["val_accuracy"] - test_lost[schedule][seed]
                trial = with_metrics(trial, test_accuracy=accuracy - 0.004)
            trials.append(trial)
    searched = ["retrain.schedule", "prune.sparsity", "seed"]
    return Comparison.from_table(made.table_of(trials, searched, **summary))


def with_metrics(trial: made.TrialOutcome, **metrics: float) -> made.TrialOutcome:
    *before, last = trial.records
    last = replace(last, metrics={**last.metrics, **metrics})
    return replace(trial, records=(*before, last))


def named(comparison: Comparison, schedule: str, goal: float = 0.95) -> Setting:
    return next(s for s in comparison.settings if s.series == schedule.upper() and s.goal == goal)


THREE = {
    ("allr", 0.95): (0.004, 0.008, 0.012),
    ("slr", 0.95): (0.005, 0.008, 0.0125),
    ("ft", 0.95): (0.024, 0.0281, 0.0322),
}


ALLR = {"reference": {"retrain.schedule": "allr"}}


def test_without_a_named_one_the_reference_is_the_best_of_each_sparsity() -> None:
    other = {("allr", 0.9): (0.02, 0.02), ("slr", 0.9): (0.001, 0.001)}
    comparison = compared(THREE | other)
    assert comparison.reference(0.95) is named(comparison, "allr")
    assert comparison.reference(0.9) is named(comparison, "slr", 0.9)
    assert comparison.reference(0.8) is None


def test_differences_are_paired_on_the_test_split() -> None:
    """Validation ranks ALLR first; on the test split FT lies ahead by 1 point at every seed."""
    test = {"allr": (0.02, 0.024, 0.028), "ft": (0.0101, 0.014, 0.0179)}
    comparison = compared(THREE, test)
    assert comparison.compared_by == "test_accuracy"
    reference = named(comparison, "allr")
    assert comparison.ranked[0] is reference
    ft = comparison.difference(named(comparison, "ft"))
    assert ft is not None and ft.mean == pytest.approx(0.01)
    assert comparison.verdict(ft) == "better"
    assert comparison.difference(reference) is None


def test_verdicts_are_those_of_the_intervals() -> None:
    comparison = compared(THREE)
    slr, ft = (comparison.difference(named(comparison, name)) for name in ("slr", "ft"))
    assert slr is not None and slr.interval is not None
    assert slr.interval[0] < 0 < slr.interval[1]
    assert (comparison.verdict(slr), comparison.verdict(ft)) == ("alike", "worse")
    assert comparison.alike(named(comparison, "allr")) == [named(comparison, "slr")]
    assert comparison.alike(named(comparison, "ft")) == []


def test_less_loss_is_better() -> None:
    loss = {"metrics": ("val_loss",), "modes": ("min",)}
    comparison = compared(THREE, reference={"retrain.schedule": "ft"}, **loss)
    assert comparison.compared_by == "test_loss"
    allr = comparison.difference(named(comparison, "allr"))
    assert allr is not None and allr.mean < 0
    assert comparison.verdict(allr) == "better"


def test_one_seed_says_nothing() -> None:
    comparison = compared({key: losses[:1] for key, losses in THREE.items()})
    difference = comparison.difference(named(comparison, "ft"))
    assert difference is not None and difference.num_pairs == 1
    assert comparison.verdict(difference) is None
    assert comparison.alike(named(comparison, "allr")) == []


def test_seeds_that_only_one_has_are_left_out() -> None:
    comparison = compared(THREE | {("slr", 0.95): THREE["slr", 0.95][:2]}, **ALLR)
    difference = comparison.difference(named(comparison, "slr"))
    assert difference is not None and difference.num_pairs == 2


def test_the_named_reference_holds_at_every_sparsity_where_it_is() -> None:
    other = {("ft", 0.9): (0.02, 0.02), ("slr", 0.9): (0.001, 0.001), ("slr", 0.98): (0.1, 0.1)}
    comparison = compared(THREE | other, reference={"retrain.schedule": "ft"})
    assert [s and (s.series, s.goal) for s in map(comparison.reference, comparison.levels)] == [
        ("FT", 0.9),
        ("FT", 0.95),
        None,
    ]
    assert comparison.difference(named(comparison, "slr", 0.98)) is None
    assert comparison.difference(named(comparison, "allr")) is not None


def test_of_several_settings_that_are_named_the_best_is_the_reference() -> None:
    comparison = compared(THREE, reference={"prune.sparsity": 0.95})
    assert comparison.reference(0.95) is named(comparison, "allr")


@pytest.mark.parametrize("value", [[1, 2], None, 2.0, "a"])
def test_a_reference_of_any_kind_is_found_in_its_table(value: Any) -> None:
    """A column of mixed kinds is text."""
    kinds: list[Any] = [value, "other"]
    trials = [
        made.renamed(
            made.imp(f"{n}-{seed}", {"x.y": kind, "seed": seed}, seed=seed, points_lost=n / 10)
        )
        for n, kind in enumerate(reversed(kinds))
        for seed in (0, 1)
    ]
    table = made.table_of(trials, ["x.y", "seed"], reference={"x.y": value})
    reference = Comparison.from_table(table).reference(0.95)
    assert reference is not None and reference.finals[0]["trial"] == "1-0"


def test_what_missed_its_goal_is_nobodys_equal() -> None:
    comparison = Comparison.from_table(made.equal_budget())
    (dst, *_) = [s for s in comparison.settings if s.missed_goal]
    assert comparison.difference(dst) is None
    assert comparison.equals_of(dst) == []
    assert all(dst not in comparison.equals_of(s) for s in comparison.settings)
    assert len(comparison.equals_of(comparison.candidates()[0])) == 8


def test_a_study_that_was_not_tested_is_compared_by_its_metric() -> None:
    table = made.equal_budget().drop_columns(["test_accuracy"])
    assert Comparison.from_table(table).compared_by == "val_accuracy"
    count = {"metrics": ("num_nonzero",), "modes": ("min",)}
    assert compared(THREE, **count).compared_by == "num_nonzero"


def test_the_reference_travels_with_the_table() -> None:
    summary = compared(THREE, reference={"a": [1]}, tuned=("b",), tuning_epochs=3).summary
    assert read_metadata(make_table([], {}, summary))[0] == summary


def test_tries_are_no_result() -> None:
    comparison = Comparison.from_table(made.tuned())
    assert {row["seed"] for row in comparison.rows} == {0, 1, 2}
    assert {row["seed"] for s in comparison.settings for row in s.rows} == {0, 1, 2}
    assert comparison.dense is not None and comparison.dense.num_seeds == 3
    assert len(comparison.finals) == 6 and len(comparison.tries) == 8
    assert all(row["is_final"] and row["phase"] == "tune" for row in comparison.tries)


def test_what_was_chosen_neither_groups_nor_names_settings() -> None:
    comparison = Comparison.from_table(made.tuned())
    assert {s.label for s in comparison.settings} == {"ALLR with 1 epoch", "SLR with 1 epoch"}
    for setting in comparison.settings:
        rates = sorted({row["optim.lr"] for row in comparison.tries_of(setting)})
        assert rates == {"ALLR": [0.1, 0.2], "SLR": [0.3, 0.4]}[setting.series]


def test_a_tuned_schedule_names_nothing() -> None:
    trials = [
        made.imp(str(sparsity), {"prune.sparsity": sparsity}, schedule=schedule, sparsity=sparsity)
        for sparsity, schedule in ((0.9, "allr"), (0.95, "slr"))
    ]
    table = made.table_of(trials, ["prune.sparsity"], tuned=("retrain.schedule",))
    assert {(s.label, s.series) for s in Comparison.from_table(table).settings} == {("IMP", "IMP")}


def test_a_table_without_phases_has_no_tries() -> None:
    comparison = Comparison.from_table(made.equal_budget())
    assert comparison.tries == comparison.tuning_rows == ()
    assert comparison.tries_of(comparison.settings[0]) == []
