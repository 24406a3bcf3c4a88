"""Comparisons: what belongs together, means and spreads, who wins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.outcome import Status
from rayprune.results.table import TABLE_KEY

FIELDS = ("retrain.schedule", "retrain.epochs", "seed")


def three_seeds(points_lost: dict[str, tuple[float, ...]], epochs: int = 3) -> pa.Table:
    """Schedules with the loss of each seed given."""
    trials = [
        made.imp(
            f"{schedule}-{seed}",
            {"retrain.schedule": schedule, "retrain.epochs": epochs, "seed": seed},
            schedule=schedule,
            epochs=epochs,
            seed=seed,
            points_lost=lost,
        )
        for schedule, losses in points_lost.items()
        for seed, lost in enumerate(losses)
    ]
    return made.table_of(trials, FIELDS)


def best_of(table: pa.Table) -> Mapping[str, Any]:
    best = Comparison.from_table(table).best
    assert best is not None
    return best


def test_trials_that_differ_in_the_seed_alone_are_one_setting() -> None:
    comparison = Comparison.from_table(made.schedules_and_sparsities(seeds=3))
    assert len(comparison.settings) == 3 * 3 * 3
    assert {len(setting.finals) for setting in comparison.settings} == {3}
    assert len({(s.label, s.goal) for s in comparison.settings}) == 27


def test_difference_to_dense_is_paired_by_seed() -> None:
    """Seeds move dense and sparse accuracy together: the difference does not spread."""
    (setting,) = Comparison.from_table(three_seeds({"allr": (0.01, 0.01, 0.01)})).settings
    assert setting.change is not None
    assert setting.change.value == pytest.approx(-0.01)
    assert setting.change.spread == pytest.approx(0, abs=1e-12)
    accuracy = setting.mean("val_accuracy")
    assert accuracy is not None
    assert accuracy.spread is not None
    assert accuracy.spread > 1e-4


def test_methods_without_a_dense_run_are_compared_with_that_of_their_seed() -> None:
    dense = [made.dense(seed).metrics["val_accuracy"] for seed in range(3)]
    gmp = next(s for s in Comparison.from_table(made.equal_budget()).settings if s.label == "GMP")
    assert gmp.change is not None
    assert gmp.change.value == pytest.approx(
        sum(row["val_accuracy"] for row in gmp.finals) / 3 - sum(dense) / 3
    )


def test_best_mean_wins_not_the_best_single_run() -> None:
    table = three_seeds({"slr": (0.0, 0.05, 0.05), "allr": (0.02, 0.02, 0.02)})
    best = best_of(table)
    assert best["retrain.schedule"] == "allr"
    accuracies = {
        row["trial"]: row["val_accuracy"]
        for row in table.to_pylist()
        if row["is_final"] and row["retrain.schedule"] == "allr"
    }
    assert best["trial"] == max(accuracies, key=lambda trial: accuracies[trial])
    assert best["is_final"]


def test_ties_go_to_fewer_epochs() -> None:
    trials = [
        made.imp(str(epochs), {"retrain.epochs": epochs}, epochs=epochs, points_lost=0.01)
        for epochs in (6, 1, 3)
    ]
    assert best_of(made.table_of(trials, ["retrain.epochs"]))["trial"] == "1"


def test_the_least_loss_wins_when_less_is_better() -> None:
    table = made.schedules_grid(metrics=("val_loss",), modes=("min",))
    rows = [row for row in table.to_pylist() if row["is_final"]]
    best = best_of(table)
    assert best["val_loss"] == min(row["val_loss"] for row in rows)


def test_a_method_that_missed_its_goal_is_not_best() -> None:
    """DST keeps 18 % of its weights and all of its accuracy: no answer to 95 %."""
    accurate = made.sparsifier("0", {}, method="dst", sparsity=0.95, seed=0, reached=0.5)
    accurate = replace(accurate, records=(replace_accuracy(accurate.records[0], 0.99),))
    sparse = made.imp("1", {"x.y": 1}, points_lost=0.05)
    comparison = Comparison.from_table(made.table_of([accurate, sparse], ["x.y"]))
    assert [s.finals[0]["trial"] for s in comparison.settings] == ["0", "1"]
    assert [s.missed_goal for s in comparison.settings] == [True, False]
    assert [s.finals[0]["trial"] for s in comparison.candidates()] == ["1"]
    assert best_of(made.table_of([accurate], []))["trial"] == "0"  # if there is nothing else


def replace_accuracy(record: made.StageRecord, accuracy: float) -> made.StageRecord:
    return replace(record, metrics={**record.metrics, "val_accuracy": accuracy})


def test_a_sparser_setting_may_win_a_lower_level() -> None:
    trials = [
        made.imp("0", {"prune.sparsity": 0.9}, sparsity=0.9, points_lost=0.03),
        made.imp("1", {"prune.sparsity": 0.98}, sparsity=0.98, points_lost=0.01),
    ]
    comparison = Comparison.from_table(made.table_of(trials, ["prune.sparsity"]))
    assert comparison.levels == (0.9, 0.98)
    assert comparison.candidates(0.9)[0].goal == 0.98
    assert [s.goal for s in comparison.candidates(0.98)] == [0.98]


def test_a_snapshot_that_two_trials_end_in_counts_once() -> None:
    trials = [made.imp(name, {"retrain.epochs": 3}, epochs=3) for name in ("0", "1")]
    (setting,) = Comparison.from_table(made.table_of(trials, ["retrain.epochs"])).settings
    assert len(setting.finals) == 1


def test_a_diverged_run_has_no_value_but_a_place_in_the_table() -> None:
    good, bad = made.imp("0", {"a.b": 1}), made.imp("1", {"a.b": 2}, epochs=2)
    broken = replace_accuracy(bad.records[1], math.nan)
    bad = replace(bad, records=(bad.records[0], broken))
    comparison = Comparison.from_table(made.table_of([bad, good], ["a.b"]))
    assert [s.finals[0]["trial"] for s in comparison.settings] == ["0", "1"]
    assert comparison.settings[1].mean("val_accuracy") is None
    assert best_of(made.table_of([bad, good], ["a.b"]))["trial"] == "0"


def test_the_dense_line_is_the_best_dense_run() -> None:
    low, high = made.dense(0, accuracy=0.80), made.dense(0, accuracy=0.90)
    low, high = replace(low, key="low", epochs=5), replace(high, key="high", epochs=20)
    trials = []
    for name, dense in (("0", low), ("1", high)):
        trial = made.imp(name, {"dense.epochs": dense.epochs}, points_lost=0.1)
        trials.append(replace(trial, records=(dense, *trial.records[1:])))
    comparison = Comparison.from_table(made.table_of(trials, ["dense.epochs"]))
    assert comparison.dense is not None
    assert comparison.dense.value == high.metrics["val_accuracy"]
    own = {s.finals[0]["trial"]: s.dense.value for s in comparison.settings if s.dense}
    assert own == {"0": low.metrics["val_accuracy"], "1": high.metrics["val_accuracy"]}


def test_trials_are_told_apart_by_their_status() -> None:
    others = [
        made.ended("12", "stopped", "behind the others"),
        made.ended("13", "failed", "out of memory"),
        made.ended("14", "unfinished", "interrupted"),
        made.ended("15", "unfinished", "interrupted"),
    ]
    comparison = Comparison.from_table(made.schedules_grid(*others))
    names = {
        status: [trial.name for trial in comparison.trials(status)]
        for status in ("stopped", "failed", "unfinished")
    }
    assert names == {"stopped": ["12"], "failed": ["13"], "unfinished": ["14", "15"]}
    assert len(comparison.trials("finished")) == len(comparison.settings) == 12
    assert comparison.reasons("unfinished") == {"interrupted": 2}


@pytest.mark.parametrize("status", ["failed", "stopped", "unfinished"])
def test_only_finished_trials_make_settings(status: Status) -> None:
    """A trial that ended after its best cycle has rows in the table and no say in the result."""
    good = made.imp("0", {"prune.cycles": 1}, points_lost=0.05)
    best = made.imp("1", {"prune.cycles": 2}, cycles=2, points_lost=0.0)
    ended = replace(best, status=status, records=best.records[:2])
    comparison = Comparison.from_table(made.table_of([good, ended], ["prune.cycles"]))
    assert {row["trial"] for row in comparison.rows} == {"0", "1"}
    assert [s.finals[0]["trial"] for s in comparison.settings] == ["0"]
    assert {row["trial"] for s in comparison.settings for row in s.rows} == {"0"}
    assert comparison.best is comparison.finals[0]


@pytest.mark.parametrize("within", [None, 0.01])
def test_a_stopped_trial_changes_nothing_but_that_it_is_listed(within: float | None) -> None:
    """Its whole cycles would win everything: they are no result of a smaller budget."""
    goals = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}
    trials = [made.imp(str(n), {"prune.cycles": n}, cycles=n) for n in (1, 2)]
    winner = made.renamed(made.imp("3", {"prune.cycles": 3}, cycles=3, points_lost=-0.05))
    dense, *cycles = winner.records
    dense = replace(dense, key=trials[0].records[0].key)
    stopped = replace(
        winner, status="stopped", reason="behind the others", records=(dense, *cycles[:2])
    )
    without, beside = (
        Comparison.from_table(
            made.table_of(those, ["prune.cycles"], within_dense=within, unique_epochs=1, **goals)
        )
        for those in (trials, [*trials, stopped])
    )
    assert {row["trial"] for row in beside.rows} == {"1", "2", "3"}
    for name in ("settings", "front", "best", "dense", "sparsest_within", "levels", "series"):
        assert getattr(beside, name) == getattr(without, name), name
    assert beside.reasons("stopped") == {"behind the others": 1}


def test_points_that_cannot_be_run_have_a_status_and_no_rows() -> None:
    comparison = Comparison.from_table(made.searcher())
    assert len(comparison.settings) == len(comparison.trials("finished")) == 40
    assert [(t.name, t.key) for t in comparison.trials("failed")] == [
        ("40", ""),
        ("41", ""),
        ("42", ""),
    ]
    only = made.table_of([made.ended("0", "failed", "no such layer")], ["optim.lr"])
    assert Comparison.from_table(only).settings == ()


def test_a_dense_run_counts_whatever_became_of_its_trial() -> None:
    """GMP has no dense run; the one of a trial that failed later is the line to hold."""
    gmp = made.sparsifier("0", {}, method="gmp", sparsity=0.95, seed=0, reached=0.95)
    failed = made.ended("1", "failed", "out of memory", [made.dense(0)])
    comparison = Comparison.from_table(made.table_of([gmp, failed], []))
    dense = made.dense(0).metrics["val_accuracy"]
    assert comparison.dense is not None and comparison.dense.value == dense
    (setting,) = comparison.settings
    assert setting.change is not None
    assert setting.change.value == gmp.records[0].metrics["val_accuracy"] - dense


def test_the_beginning_of_a_dense_run_is_no_result() -> None:
    """Weight rewinding cuts a dense run in two; its first part reached less and counts nowhere."""
    trial = made.imp("0", {})
    start = replace(
        made.dense(0, accuracy=0.99), key="start", epochs=3, part_of=trial.records[0].key
    )
    cut = replace(trial, records=(start, *trial.records))
    whole, parts = (
        Comparison.from_table(made.table_of([t], [], unique_epochs=1)) for t in (trial, cut)
    )
    assert made.table_of([cut], []).num_rows == 3
    assert [row["key"] for row in parts.rows] == [r.key for r in trial.records]
    assert parts.dense == whole.dense
    assert parts.settings[0].change == whole.settings[0].change


def test_without_finished_trials_there_is_no_best_one() -> None:
    trial = made.ended("0", "unfinished", "", [made.dense(0)])
    assert Comparison.from_table(made.table_of([trial], [])).best is None
    assert Comparison.from_table(made.table_of([], [])).best is None


def test_other_tables_are_refused() -> None:
    other = pa.table({"a": [1]})
    for metadata in (None, {TABLE_KEY: b"[1]"}, {TABLE_KEY: b"{"}):
        with pytest.raises(ValueError, match="not written by this version of rayprune"):
            Comparison.from_table(other.replace_schema_metadata(metadata))
    with pytest.raises(ValueError, match=r"lacks the columns cycle, .*trial"):
        Comparison.from_table(other.replace_schema_metadata(made.one_trial().schema.metadata))
