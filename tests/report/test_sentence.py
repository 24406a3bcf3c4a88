"""The sentence that answers, and numbers as people read them."""

from __future__ import annotations

from dataclasses import replace

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report import answer, summary_table
from rayprune.report.sentence import best_by_level, epochs_of, metric_name, percent, show_change
from rayprune.results.comparison import Mean, Results
from rayprune.results.outcome import TrialResult

SPEEDUP = 0.05**-0.85  # of the made records at 95 %


def study(*trials: tuple[dict[str, object], float], metric_is_loss: bool = False) -> pa.Table:
    """Trials as (arguments of `made.imp`, points lost)."""
    paths = {"schedule": "retrain.schedule", "epochs": "retrain.epochs"}
    paths |= {"sparsity": "prune.sparsity", "seed": "seed"}
    results = [
        made.imp(
            str(n),
            {paths[name]: value for name, value in fields.items()},
            points_lost=lost,
            **fields,  # type: ignore[arg-type]
        )
        for n, (fields, lost) in enumerate(trials)
    ]
    searched = [path for name, path in paths.items() if any(name in f for f, _ in trials)]
    return made.table_of(results, searched)


def dense(seed: int = 0) -> float:
    return made.dense(seed).metrics["val_accuracy"]


def test_one_seed_one_sparsity() -> None:
    table = study(
        ({"schedule": "allr", "epochs": 3}, 0.008), ({"schedule": "ft", "epochs": 3}, 0.03)
    )
    assert answer(table) == (
        f"ALLR with 3 epochs keeps 95 % sparsity at -0.8 points of validation accuracy (dense "
        f"{100 * dense():.1f} %, one seed), {SPEEDUP:.1f}x fewer multiply-adds in theory."
    )


def test_the_sparsest_within_one_point_and_what_the_next_costs() -> None:
    table = study(
        ({"sparsity": 0.9}, 0.001),
        ({"sparsity": 0.95}, 0.0099),
        ({"sparsity": 0.98}, 0.026),
    )
    said = answer(table)
    assert said.startswith("ALLR with 1 epoch keeps 95 % sparsity at -1.0 points")
    assert said.endswith("; 98 % would be at -2.6.")


def test_nothing_within_one_point_is_said_first() -> None:
    said = answer(study(({"schedule": "ft"}, 0.05), ({"schedule": "allr"}, 0.02)))
    assert said.startswith(
        "No setting stays within one point of its dense run; the closest: ALLR with 1 epoch keeps "
        "95 % sparsity at -2.0 points"
    )


def test_seeds_give_mean_and_spread() -> None:
    lost = (0.006, 0.008, 0.010)
    table = study(*(({"schedule": "allr", "seed": s}, x) for s, x in enumerate(lost)))
    assert "at -0.8 ± 0.2 points" in answer(table)
    assert "3 seeds)" in answer(table)


def test_no_winner_is_claimed_within_the_spread() -> None:
    """SLR is .1 points worse on the mean, and the seeds spread by more."""
    allr, slr, ft = (0.004, 0.008, 0.012), (0.005, 0.009, 0.013), (0.08, 0.08, 0.08)
    trials = [
        ({"schedule": name, "seed": seed}, x)
        for name, lost in (("allr", allr), ("slr", slr), ("ft", ft))
        for seed, x in enumerate(lost)
    ]
    assert answer(study(*trials)).endswith(
        "; SLR with 1 epoch is as good within the seeds' spread."
    )


def test_the_cheapest_of_equals_is_named() -> None:
    trials = [
        ({"epochs": epochs, "seed": seed}, x + shift)
        for epochs, shift in ((6, 0.0), (3, 0.0005), (1, 0.001))
        for seed, x in enumerate((0.002, 0.005, 0.008))
    ]
    assert answer(study(*trials)).endswith(
        "; ALLR with 1 epoch is as good within the seeds' spread, for 13 epochs in all "
        "instead of 18."
    )


def test_one_seed_has_no_equals() -> None:
    said = answer(study(({"schedule": "allr"}, 0.008), ({"schedule": "slr"}, 0.008001)))
    assert "as good" not in said
    assert "one seed" in said


def test_losses_are_no_percentages() -> None:
    table = made.schedules_grid()
    summary = made.summary_of(table) | {"metric": "val_loss", "mode": "min"}
    said = answer(made.with_summary(table, summary))
    assert "points" not in said
    assert "of validation loss" not in said
    assert "+0.0" in said


def test_without_a_dense_run_there_is_no_difference() -> None:
    trial = made.sparsifier("0", {}, method="gmp", sparsity=0.95, seed=0, reached=0.95)
    said = answer(made.table_of([trial], []))
    assert said.startswith("GMP with 15 epochs reaches 88.")
    assert "no dense run to compare with" in said


def test_no_finished_trial() -> None:
    table = made.table_of([], [], {"0": "boom", "1": "boom", "2": "stopped early"})
    assert answer(table) == "No trial has finished: 2 failed, 1 stopped early."


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
    ("change", "shown"),
    [
        (Mean(-0.00832, None, 1), "-0.83"),
        (Mean(0.002, 0.0011, 3), "+0.20 ± 0.11"),
        (Mean(-0.00001, None, 1), "0.00"),
        (None, "–"),
    ],
)
def test_changes_are_in_points(change: Mean | None, shown: str) -> None:
    assert show_change(Results.from_table(made.one_trial()), change) == shown


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("val_accuracy", "validation accuracy"),
        ("pruned_val_accuracy", "validation accuracy"),
        ("test_loss", "test loss"),
        ("val_mean_iou", "validation mean IoU"),
    ],
)
def test_metrics_have_names(metric: str, name: str) -> None:
    assert metric_name(metric) == name


def test_summary_table_is_text_best_first() -> None:
    rows = summary_table(made.schedules_grid())
    assert len(rows) == 12
    values = [float(row["val accuracy %"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[0]["setting"] == "ALLR with 3 epochs"
    assert rows[0]["sparsity"] == "95 %"
    assert rows[0]["speed-up in theory"] == f"{SPEEDUP:.1f}x"


def test_summary_says_which_goal_was_missed_and_which_seed_is_missing() -> None:
    rows = {row["setting"]: row for row in summary_table(made.equal_budget())}
    assert rows["DST (goal missed)"]["sparsity"] == "82 %"
    trials: list[TrialResult] = []
    for seed in range(3):
        trial = made.imp(str(seed), {"seed": seed}, seed=seed)
        if seed == 1:
            broken = replace(trial.records[1], metrics={"val_loss": 1.0})
            trial = replace(trial, records=(trial.records[0], broken))
        trials.append(trial)
    assert summary_table(made.table_of(trials, ["seed"]))[0]["seeds"] == "2 of 3"


def test_many_levels_shrink_to_those_where_the_best_changes() -> None:
    results = Results.from_table(made.random_search(100))
    levels = best_by_level(results)
    assert len({id(setting) for _, setting in levels}) == len(levels) < 40
    qualities = [setting.mean("val_accuracy").value for _, setting in levels]  # type: ignore[union-attr]
    assert qualities == sorted(qualities, reverse=True)


def test_epochs_are_compared_with_separate_runs() -> None:
    table = made.schedules_grid()
    assert epochs_of(Results.from_table(table)) == (
        "36 epochs run, each of 36 unique ones once; separate runs would have cost 168 (4.7x)"
    )
    again = made.with_summary(table, made.summary_of(table) | {"executed_epochs": 0})
    assert epochs_of(Results.from_table(again)).startswith("0 epochs run, 36 found from before;")
    assert epochs_of(Results.from_table(made.one_trial())) == "14 epochs run"
