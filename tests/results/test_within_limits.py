"""Limits on what is measured: what is within comes before what is not, and all else is as ever."""

from __future__ import annotations

from typing import Any

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.results.comparison import Comparison


def comparison(table: pa.Table) -> Comparison:
    return Comparison.from_table(table)


STUDIES = {
    "schedules": made.schedules_and_sparsities,
    "searcher": made.searcher,
    "methods": made.equal_budget,
}


@pytest.mark.parametrize("summary", [{}, {"within_dense": 0.01}, {"within_dense": 0.0}])
@pytest.mark.parametrize("limit", [1.4, 1.7, 2.1, 9.0])
@pytest.mark.parametrize("study", ["searcher", "methods"])
def test_what_is_within_comes_before_what_is_not(
    study: str, limit: float, summary: dict[str, Any]
) -> None:
    within = {"latency_ms": limit}
    found = comparison(made.measured(STUDIES[study](within=within, **summary)))
    inside = [s for s in found.sparse if s.value("latency_ms") <= limit]
    assert inside and found.has_within_limits
    assert found.sparse[: len(inside)] == tuple(inside)
    assert all(s in inside for s in found.candidates())
    best = next(s for s in found.settings if found.best in s.finals)
    assert best in inside
    for level in found.levels:
        fast = [s for s in found.candidates(level) if s in inside]
        assert not fast or found.candidates(level) == fast
    # Among those within, the order is the one that it is without limits.
    plain = comparison(made.measured(STUDIES[study](**summary)))
    order = [(s.label, s.goal) for s in plain.sparse]
    for some in (inside, [s for s in found.sparse if s not in inside]):
        places = [order.index((s.label, s.goal)) for s in some]
        assert places == sorted(places)


def test_the_best_within_is_the_best_metric_among_them() -> None:
    found = comparison(made.measured(made.searcher(within={"latency_ms": 1.5})))
    inside = [s for s in found.sparse if s.value("latency_ms") <= 1.5]
    assert found.candidates()[0].value("val_accuracy") == max(
        s.value("val_accuracy") for s in inside
    )


def test_the_sparsest_within_a_loss_is_within_the_limits_too() -> None:
    summary = {"within_dense": 0.01, "within": {"latency_ms": 2.0}}
    found = comparison(made.measured(made.searcher(**summary)))
    inside = [s for s in found.sparse if s.value("latency_ms") <= 2.0 and found.is_within(s)]
    assert found.sparsest_within in inside
    assert found.sparsest_within.sparsity == max(s.sparsity for s in inside)
    assert found.candidates()[0] is found.settings[0] is found.sparsest_within


@pytest.mark.parametrize("summary", [{}, {"within_dense": 0.006}])
def test_where_none_is_within_all_is_as_without_limits(summary: dict[str, Any]) -> None:
    over = comparison(made.measured(made.searcher(within={"latency_ms": 0.1}, **summary)))
    plain = comparison(made.measured(made.searcher(**summary)))
    assert not over.has_within_limits
    assert over.settings == plain.settings and over.best == plain.best
    assert over.sparsest_within == plain.sparsest_within


def test_what_was_not_measured_is_not_within() -> None:
    table = made.measured(made.schedules_grid(within={"file_mb": 9.0}))
    best = comparison(table).best
    assert best is not None
    columns = [
        [None if row["trial"] == best["trial"] else row[name] for row in table.to_pylist()]
        if name == "file_mb"
        else table[name]
        for name in table.column_names
    ]
    without = pa.table(columns, table.column_names).replace_schema_metadata(table.schema.metadata)
    found = comparison(without)
    assert found.best is not None and found.best["trial"] != best["trial"]
    nothing = comparison(made.schedules_grid(within={"file_mb": 9.0}))
    assert not nothing.has_within_limits and not nothing.has_measurements
    assert nothing.best is not None and nothing.best["trial"] == best["trial"]


def with_values(table: pa.Table, column: str, values: dict[str, float | None]) -> pa.Table:
    """The table with other values of a column in the last rows of some trials."""
    found = [
        values.get(row["trial"], row[column]) if row["is_final"] else row[column]
        for row in table.to_pylist()
    ]
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(found, pa.float64()))


def test_a_setting_is_within_once_every_seed_is_measured() -> None:
    table = made.measured(made.schedules_and_sparsities())
    first = comparison(table).settings[0]
    trials = [row["trial"] for row in first.finals]

    def side(limit: float, *unknown: str, **more: float) -> bool | None:
        some = with_values(table, "latency_ms", dict.fromkeys(unknown))
        found = comparison(made.with_summary(some, within={"latency_ms": limit, **more}))
        (setting,) = [s for s in found.settings if (s.label, s.goal) == (first.label, first.goal)]
        assert found.is_within_limits(setting) is (found.within_limits(setting) is True)
        return found.within_limits(setting)

    assert side(9.0) is True and side(0.1) is False
    assert side(9.0, *trials[1:]) is None and side(0.1, *trials[1:]) is None
    assert side(9.0, *trials, file_mb=0.001) is False, "over a limit that is known"
    assert side(9.0, *trials, file_mb=9.0) is None


def test_whether_something_is_not_known_is_known() -> None:
    within = {"latency_ms": 9.0}
    table = made.with_summary(made.measured(made.schedules_and_sparsities()), within=within)
    assert not comparison(table).is_unsure_of_limits
    assert comparison(with_values(table, "latency_ms", {"00": None})).is_unsure_of_limits
    assert not comparison(made.schedules_and_sparsities()).is_unsure_of_limits, "no limits"
    nothing = comparison(made.with_summary(made.schedules_and_sparsities(), within=within))
    assert nothing.is_unsure_of_limits and not nothing.has_within_limits


def test_the_best_seed_is_within_the_limits_itself() -> None:
    """A mean of 2 ms, and the best of its seeds takes 3: that one is not what was asked for."""
    table = made.measured(made.schedules_and_sparsities())
    setting = comparison(table).settings[0]
    best, *others = sorted(setting.finals, key=lambda row: -row["val_accuracy"])
    times = {best["trial"]: 3.0} | {row["trial"]: 1.5 for row in others}
    within = {"latency_ms": 2.0}
    slow = comparison(made.with_summary(with_values(table, "latency_ms", times), within=within))
    (again,) = [s for s in slow.settings if (s.label, s.goal) == (setting.label, setting.goal)]
    assert slow.is_within_limits(again)
    assert slow.best_seed(again)["trial"] == others[0]["trial"]
    plain = made.with_summary(with_values(table, "latency_ms", times), within={})
    assert comparison(plain).best_seed(again)["trial"] == best["trial"]
    # Where no seed is within, the best one is.
    none = made.with_summary(table, within={"latency_ms": 0.1})
    assert comparison(none).best_seed(setting)["trial"] == best["trial"]


def test_every_limit_counts_and_the_limit_itself_is_within() -> None:
    table = made.measured(made.one_trial(), {"allr-2-0.95-1-1-0": made.measurement(file_mb=2.0)})
    for within, is_within in (
        ({}, True),
        ({"file_mb": 2.0}, True),
        ({"file_mb": 1.99}, False),
        ({"file_mb": 2.0, "latency_ms": 0.1}, False),
        ({"file_mb": 2.0, "latency_ms": 5.0}, True),
    ):
        found = comparison(made.with_summary(table, within=within))
        assert found.is_within_limits(found.settings[0]) is is_within


def test_means_over_seeds_are_what_is_limited() -> None:
    table = made.measured(made.schedules_and_sparsities())
    setting = comparison(table).settings[0]
    values = [row["latency_ms"] for row in setting.finals]
    assert min(values) < setting.value("latency_ms") < max(values)
    limited = made.with_summary(table, within={"latency_ms": setting.value("latency_ms")})
    again = comparison(limited)
    assert again.is_within_limits(
        next(s for s in again.settings if s.label == setting.label and s.goal == setting.goal)
    )


def test_a_goal_that_is_measured_has_a_front() -> None:
    goals = {"metrics": ("val_accuracy", "latency_ms"), "modes": ("max", "min")}
    found = comparison(made.measured(made.searcher(**goals)))
    points = [(s.value("val_accuracy"), s.value("latency_ms")) for s in found.front]
    assert len(points) > 2 and points == sorted(points, reverse=True)
    assert comparison(made.searcher(**goals)).front == (), "nothing was measured yet"
