"""Columns: the same cells wherever a table is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report.columns import (
    MOST_LEVELS,
    SUMMARY_ROWS,
    Column,
    best_by_level,
    front_columns,
    level_columns,
    setting_columns,
    summary_columns,
    summary_rows,
    trial_columns,
    trials_by_metric,
)
from rayprune.results.comparison import Comparison

SPEEDUP = 0.05**-0.85  # of the made records at 95 %


def cells(columns: Sequence[Column[Any]], rows: Sequence[Any]) -> list[dict[str, str]]:
    return [{column.heading: column.text(row) for column in columns} for row in rows]


def summary(table: pa.Table) -> list[dict[str, str]]:
    comparison = Comparison.from_table(table)
    return cells(summary_columns(comparison), comparison.settings)


def test_the_summary_is_text_best_first() -> None:
    rows = summary(made.schedules_grid())
    assert len(rows) == 12
    values = [float(row["val accuracy %"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[0]["setting"] == "ALLR with 3 epochs"
    assert rows[0]["sparsity"] == "95 %"
    assert rows[0]["epochs"] == "15"
    assert rows[0]["speed-up in theory"] == f"{SPEEDUP:.1f}x"


@pytest.mark.parametrize("make", [made.schedules_grid, made.equal_budget, made.cycles])
def test_page_and_summary_agree_in_what_both_show(make: Any) -> None:
    comparison = Comparison.from_table(make())
    page = cells(setting_columns(comparison), comparison.settings)
    short = cells(summary_columns(comparison), comparison.settings)
    both = {"epochs", "vs dense, points", "speed-up in theory"}
    assert both <= page[0].keys() & short[0].keys()
    assert [{k: row[k] for k in both} for row in page] == [
        {k: row[k] for k in both} for row in short
    ]
    assert [row["validation accuracy"] for row in page] == [
        f"{row['val accuracy %']} %" for row in short
    ]


@pytest.mark.parametrize("columns_of", [setting_columns, trial_columns])
def test_what_is_sorted_by_has_the_order_of_what_is_shown(columns_of: Any) -> None:
    """A number in a cell is the value it is sorted by, rounded."""
    comparison = Comparison.from_table(made.schedules_grid())
    rows = comparison.settings if columns_of is setting_columns else trials_by_metric(comparison)
    numbers = [c for c in columns_of(comparison) if not c.is_text]
    assert len(numbers) > 4
    for column in numbers:
        for row in rows:
            shown, value = float(column.text(row).rstrip(" %x")), column.sort_value(row)
            assert min(abs(shown - value * scale) for scale in (1, 100)) <= 0.051, column.heading


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    comparison = Comparison.from_table(made.equal_budget())
    lists: Sequence[Sequence[Column[Any]]] = (
        setting_columns(comparison),
        summary_columns(comparison),
        level_columns(comparison),
        trial_columns(comparison),
    )
    words = [{c.heading for c in columns if c.is_text} for columns in lists]
    assert words == [
        {"setting"},
        {"setting"},
        {"at least", "best setting", "cannot be told apart from it"},
        {"trial", "setting"},
    ]


def test_a_missed_goal_is_said() -> None:
    comparison = Comparison.from_table(made.equal_budget())
    rows = {row["setting"]: row for row in summary(made.equal_budget())}
    assert rows["DST (goal missed)"]["sparsity"] == "82 %"
    page = cells(setting_columns(comparison), comparison.settings)
    missed = {row["sparsity"] for row in page if row["setting"] == "DST"}
    assert missed == {f"82 % (goal {goal} %)" for goal in (90, 95, 98)}


def test_seeds_are_shown_where_settings_differ_in_their_number() -> None:
    assert "seeds" not in summary(made.equal_budget())[0]
    trials = [
        made.imp(f"{epochs}-{seed}", {"retrain.epochs": epochs}, epochs=epochs, seed=seed)
        for epochs in (1, 2)
        for seed in range(3)
    ]
    diverged = replace(trials[1].records[1], metrics={"val_loss": 1.0})
    trials[1] = replace(trials[1], records=(trials[1].records[0], diverged))
    rows = summary(made.table_of(trials, ["retrain.epochs", "seed"]))
    assert sorted(row["seeds"] for row in rows) == ["2 of 3", "3"]


def test_many_levels_shrink_to_those_where_the_best_changes() -> None:
    comparison = Comparison.from_table(made.random_search(100))
    assert len(comparison.levels) > 10 * MOST_LEVELS
    levels = best_by_level(comparison)
    assert 1 < len({id(setting) for _, setting in levels}) == len(levels) < 40
    qualities = [setting.mean("val_accuracy").value for _, setting in levels]  # type: ignore[union-attr]
    assert qualities == sorted(qualities, reverse=True)


def test_equals_of_the_best_are_named_where_there_are_seeds() -> None:
    heading = "cannot be told apart from it"
    lost = {"allr": (4, 6, 5), "slr": (6, 4, 5.2), "ft": (80, 81, 80)}
    trials = [
        made.imp(
            f"{schedule}-{seed}",
            {"retrain.schedule": schedule, "seed": seed},
            schedule=schedule,
            seed=seed,
            points_lost=points / 1000,
        )
        for schedule, losses in lost.items()
        for seed, points in enumerate(losses)
    ]
    comparison = Comparison.from_table(made.table_of(trials, ["retrain.schedule", "seed"]))
    (row,) = cells(level_columns(comparison), best_by_level(comparison))
    assert (row["best setting"], row[heading]) == ("ALLR with 1 epoch", "SLR with 1 epoch")
    single = Comparison.from_table(made.schedules_grid())
    assert heading not in {column.heading for column in level_columns(single)}


def test_differences_to_the_reference_have_a_column_where_seeds_say_something() -> None:
    comparison = Comparison.from_table(made.equal_budget())
    heading = "vs ALLR, points (95 %)"
    for columns in (setting_columns(comparison), summary_columns(comparison)):
        rows = cells(columns, comparison.settings)
        pairs = zip(comparison.settings, rows, strict=True)
        shown = {(setting.label, setting.goal): row[heading] for setting, row in pairs}
        assert shown["ALLR", 0.95] == "reference"
        assert shown["DST", 0.95] == "goal missed"
        assert re.fullmatch(r"-1\.\d\d \[-\d\.\d\d, -?\+?\d\.\d\d\]", shown["GSM", 0.95])
    single = Comparison.from_table(made.schedules_grid())
    assert not any("(95 %)" in column.heading for column in setting_columns(single))


def test_with_a_named_reference_the_best_of_each_sparsity_is_compared_with_it() -> None:
    table = made.equal_budget(reference={"method": "GMP"})
    comparison = Comparison.from_table(table)
    rows = cells(level_columns(comparison), best_by_level(comparison))
    assert all(re.match(r"[+-]\d", row["vs GMP, points (95 %)"]) for row in rows)
    assert not any("told apart" in heading for heading in rows[0])
    plain = Comparison.from_table(made.equal_budget())
    assert "vs ALLR, points (95 %)" not in cells(level_columns(plain), best_by_level(plain))[0]


def test_trials_come_best_first_and_diverged_ones_last() -> None:
    trial = made.imp("bad", {"seed": 3}, seed=3)
    nan = replace(trial.records[1], metrics={"val_accuracy": float("nan")})
    trials = [replace(trial, records=(trial.records[0], nan))]
    trials += [made.imp(str(seed), {"seed": seed}, seed=seed) for seed in range(3)]
    comparison = Comparison.from_table(made.table_of(trials, ["seed"]))
    rows = cells(trial_columns(comparison), trials_by_metric(comparison))
    values = [row["validation accuracy"] for row in rows]
    assert values[:3] == sorted(values[:3], reverse=True)
    assert (rows[3]["trial"], values[3]) == ("bad", "–")


GOALS = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}


def test_other_goals_have_a_column_and_the_front_a_mark() -> None:
    comparison = Comparison.from_table(made.searcher(**GOALS))
    for columns in (summary_columns(comparison), setting_columns(comparison)):
        rows = cells(columns, comparison.settings)
        on_it = [s for s, row in zip(comparison.settings, rows, strict=True) if row["Pareto"]]
        assert {row["Pareto"] for row in rows} == {"front", ""}
        assert sorted(map(id, on_it)) == sorted(map(id, comparison.front))
        nonzero = comparison.settings[0].finals[0]["num_nonzero"]
        assert rows[0]["non-zero parameters"] == f"{nonzero:,}"
    assert "Pareto" not in summary(made.schedules_grid())[0]


@pytest.mark.parametrize("goal", ["sparsity", "total_epochs", "theoretical_speedup", "compression"])
def test_a_goal_has_one_column_in_every_table(goal: str) -> None:
    goals = {"metrics": ("val_accuracy", goal), "modes": ("max", "max")}
    comparison = Comparison.from_table(made.schedules_grid(**goals))
    for columns in (
        summary_columns(comparison), setting_columns(comparison), front_columns(comparison),
    ):  # fmt: skip
        headings = [column.heading for column in columns]
        assert len(headings) == len(set(headings))
        assert {"total_epochs": "epochs", "theoretical_speedup": "speed-up in theory"}.get(
            goal, goal
        ) in headings


def test_a_goal_that_is_not_measured_on_a_split_has_no_twin() -> None:
    comparison = Comparison.from_table(made.schedules_grid(metrics=("compression",)))
    for columns in (setting_columns(comparison), summary_columns(comparison)):
        assert not any("pruned" in c.heading or "test" in c.heading for c in columns)


def test_the_front_and_the_best_are_among_the_rows_of_the_summary() -> None:
    comparison = Comparison.from_table(made.searcher(within_dense=0.005, **GOALS))
    rows = summary_rows(comparison)
    assert len(rows) == SUMMARY_ROWS < len(comparison.settings)
    assert {*map(id, comparison.front)} | {id(comparison.settings[0])} <= {*map(id, rows)}
    places = [comparison.settings.index(setting) for setting in rows]
    assert places == sorted(places)
    plain = Comparison.from_table(made.searcher())
    assert list(summary_rows(plain)) == list(plain.settings[:SUMMARY_ROWS])


def test_a_column_says_which_settings_are_within() -> None:
    comparison = Comparison.from_table(made.searcher(within_dense=0.005))
    rows = cells(summary_columns(comparison), comparison.settings)
    said = [row["within 0.5 points"] for row in rows]
    assert said == ["yes" if comparison.is_within(s) else "no" for s in comparison.settings]
    assert 0 < said.count("yes") < 40
