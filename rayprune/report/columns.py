"""Columns of every table of a report, for the page, a terminal and a notebook alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rayprune.report import numbers
from rayprune.report.deployed import limits
from rayprune.report.differences import difference_cell, difference_name
from rayprune.results.comparison import Comparison, Row
from rayprune.results.labels import UNITS, is_measured, metric_name, on_test
from rayprune.results.setting import Mean, Setting

T = TypeVar("T")

SUMMARY_ROWS = 20  # of settings, where there is the page for the others
MOST_LEVELS = 8
# Goals that all tables show, where they are known.
ELSEWHERE = {"sparsity", "total_epochs", "theoretical_speedup", *UNITS}

Level = tuple[float, Setting]  # a goal sparsity, and the best setting that is as sparse
Trial = tuple[Setting, Row]  # a finished trial's last row, and the setting that it belongs to


@dataclass(frozen=True, kw_only=True)
class Column(Generic[T]):
    """One column of a table whose rows are made of values of one kind."""

    heading: str
    text: Callable[[T], str]
    """A row's cell."""
    sort_value: Callable[[T], Any] = lambda _: None
    """What a row is sorted by; None where nothing was measured."""
    is_text: bool = False
    """Words, to the left; numbers stand to the right."""
    may_wrap: bool = False
    """Long words, which may take several lines."""
    may_be_left_out: bool = False
    """Where there is no room, and the page has it."""


def setting_columns(comparison: Comparison) -> list[Column[Setting]]:
    """All that is known of a setting, for the page."""
    metric, name = comparison.metric, metric_name(comparison.metric)
    return [
        Column(heading="setting", text=_label, sort_value=_label, is_text=True),
        *_marks(comparison),
        _sparsity_column(),
        _epochs(),
        _metric(comparison, metric, name),
        _change(comparison),
        *_difference(comparison),
        *_measured(comparison, f"pruned_{metric}", f"just pruned, {name}"),
        *_measured(comparison, on_test(metric), metric_name(on_test(metric))),
        *_goals(comparison, ELSEWHERE | {metric, "compression"}),
        _ratio("speed-up in theory", "theoretical_speedup"),
        *_deployed(comparison),
        _ratio("compression", "compression"),
        _seeds(comparison),
    ]


def summary_columns(comparison: Comparison) -> list[Column[Setting]]:
    """What fits a terminal or a notebook; the seeds where settings differ in their number."""
    metric, test = comparison.metric, on_test(comparison.metric)
    unit = " %" if comparison.is_fraction else ""
    columns = [
        Column(heading="setting", text=_label_and_goal, sort_value=_label, is_text=True),
        Column(heading="sparsity", text=_sparsity, sort_value=lambda s: s.sparsity),
        _minor(_epochs()),
        _metric(comparison, metric, f"{metric.replace('_', ' ')}{unit}", unit=""),
        _change(comparison),
        *_difference(comparison),
        *map(_minor, _measured(comparison, test, f"{test.replace('_', ' ')}{unit}", unit="")),
        *_goals(comparison, ELSEWHERE | {metric}),
        _minor(_ratio("speed-up in theory", "theoretical_speedup")),
        *map(_minor, _deployed(comparison)),
    ]
    is_same = len({numbers.seeds_of(comparison, s) for s in comparison.settings}) == 1
    return [*columns, *([] if is_same else [_seeds(comparison)]), *_marks(comparison)]


def summary_rows(comparison: Comparison) -> Sequence[Setting]:
    """The settings that a terminal or a notebook shows: the best, those on the front, others."""
    settings = comparison.settings
    front = {id(setting) for setting in (*settings[:1], *comparison.front)}
    chosen = sorted(settings, key=lambda s: id(s) not in front)[:SUMMARY_ROWS]
    shown = {id(setting) for setting in chosen}
    return [setting for setting in settings if id(setting) in shown]


def front_columns(comparison: Comparison) -> list[Column[Setting]]:
    """A setting on the Pareto front."""
    goals = comparison.summary.metrics
    extra = [("sparsity", _sparsity_column()), ("total_epochs", _epochs())]
    test = on_test(comparison.metric)
    return [
        Column(heading="setting", text=_label, sort_value=_label, is_text=True),
        *_goals(comparison, set()),
        *(column for goal, column in extra if goal not in goals),
        _change(comparison),
        *_measured(comparison, test, metric_name(test)),
    ]


def level_columns(comparison: Comparison) -> list[Column[Level]]:
    """The best setting of a goal sparsity."""
    metric, test = comparison.metric, on_test(comparison.metric)
    columns = [
        Column(heading="at least", text=_least_sparsity, is_text=True),
        Column[Level](
            heading="best setting", text=lambda level: level[1].label, is_text=True, may_wrap=True
        ),
        *map(
            _of_best,
            (
                _metric(comparison, metric, metric_name(metric)),
                _change(comparison),
                *(_difference(comparison) if comparison.summary.reference else ()),
                *_measured(comparison, test, metric_name(test)),
                _epochs(),
                _ratio("speed-up in theory", "theoretical_speedup"),
                *_deployed(comparison),
            ),
        ),
    ]
    if not comparison.has_intervals or comparison.summary.reference:
        return columns  # what is said of the reference may not be said of another setting
    alike = Column[Level](
        heading="cannot be told apart from it",
        text=lambda level: _names(comparison.alike(level[1])),
        is_text=True,
        may_wrap=True,
    )
    return [*columns, alike]


def trial_columns(comparison: Comparison) -> list[Column[Trial]]:
    """One finished trial."""

    def metric(column: str) -> Column[Trial]:
        return Column(
            heading=metric_name(column),
            text=lambda trial: numbers.metric_value(comparison, trial[1].get(column)),
            sort_value=lambda trial: trial[1].get(column),
        )

    def number(heading: str, column: str, text: Callable[[Any], str]) -> Column[Trial]:
        return Column(
            heading=heading,
            text=lambda trial: text(trial[1][column]),
            sort_value=lambda trial: trial[1][column],
        )

    measured = [
        number("speed-up measured", "measured_speedup", numbers.speedup),
        number("latency ms", "latency_ms", numbers.measured),
        number("file MB", "file_mb", numbers.measured),
    ]
    return [
        Column(
            heading="trial",
            text=lambda trial: trial[1]["trial"],
            sort_value=lambda trial: trial[1]["trial"],
            is_text=True,
        ),
        Column(
            heading="setting",
            text=lambda trial: trial[0].label,
            sort_value=lambda trial: trial[0].label,
            is_text=True,
        ),
        number("seed", "seed", str),
        number("sparsity", "sparsity", numbers.percent),
        number("epochs", "total_epochs", numbers.epochs),
        *map(metric, dict.fromkeys((comparison.metric, on_test(comparison.metric)))),
        *(measured if comparison.has_measurements else ()),
    ]


def best_by_level(comparison: Comparison) -> Sequence[Level]:
    """For each goal sparsity the best setting that is at least that sparse.

    Of many goals, as a random search has them, only those at which the best setting changes.
    """
    best = [(level, comparison.candidates(level)[0]) for level in comparison.levels]
    if len(best) <= MOST_LEVELS:
        return best
    return list({id(setting): (level, setting) for level, setting in best}.values())


def trials_by_metric(comparison: Comparison) -> Sequence[Trial]:
    """Every finished trial, best first; those without a value of the metric come last."""

    def order(trial: Trial) -> float:
        value = trial[1][comparison.metric]
        return float("inf") if value is None else -comparison.quality(value)

    return sorted(((s, row) for s in comparison.settings for row in s.finals), key=order)


def _epochs() -> Column[Setting]:
    return Column(
        heading="epochs", text=lambda s: numbers.epochs(s.epochs), sort_value=lambda s: s.epochs
    )


def _metric(comparison: Comparison, column: str, heading: str, unit: str = " %") -> Column[Setting]:
    return Column(
        heading=heading,
        text=lambda s: numbers.metric_value(comparison, s.mean(column), unit),
        sort_value=lambda s: _value(s.mean(column)),
    )


def _measured(
    comparison: Comparison, column: str, heading: str, unit: str = " %"
) -> list[Column[Setting]]:
    """The metric at another time or on another split; none of a metric that is counted."""
    is_there = is_measured(comparison.metric)
    return [_metric(comparison, column, heading, unit)] if is_there else []


def _deployed(comparison: Comparison) -> list[Column[Setting]]:
    """What was measured of a network as a file, where anything was."""

    def column(heading: str, name: str) -> Column[Setting]:
        return Column(
            heading=heading,
            text=lambda s: numbers.measured(_value(s.mean(name))),
            sort_value=lambda s: _value(s.mean(name)),
        )

    if not comparison.has_measurements:
        return []
    speedup = _ratio("speed-up measured", "measured_speedup", numbers.speedup)
    return [speedup, column("latency ms", "latency_ms"), column("file MB", "file_mb")]


def _goals(comparison: Comparison, shown: set[str]) -> list[Column[Setting]]:
    """The study's goals that have no column yet."""

    def column(goal: str) -> Column[Setting]:
        return Column(
            heading=metric_name(goal),
            text=lambda s: numbers.goal_value(comparison, goal, s.mean(goal)),
            sort_value=lambda s: _value(s.mean(goal)),
        )

    return [column(goal) for goal in comparison.summary.metrics if goal not in shown]


def _marks(comparison: Comparison) -> list[Column[Setting]]:
    """Which settings answer what the study asks beside its metric, if it does."""
    columns: list[Column[Setting]] = []
    if comparison.summary.within_dense is not None:
        heading = f"within {numbers.tolerance(comparison)}"
        columns.append(_mark(heading, lambda s: "yes" if comparison.is_within(s) else "no"))
    if within := limits(comparison):
        words = {True: "yes", False: "no", None: numbers.MISSING}
        columns.append(_mark(f"within {within}", lambda s: words[comparison.within_limits(s)]))
    if comparison.front:
        front = {id(setting) for setting in comparison.front}
        columns.append(_mark("Pareto", lambda s: "front" if id(s) in front else ""))
    return columns


def _mark(heading: str, text: Callable[[Setting], str]) -> Column[Setting]:
    return Column(heading=heading, text=text, sort_value=text, is_text=True)


def _sparsity_column() -> Column[Setting]:
    return Column(heading="sparsity", text=_sparsity_and_goal, sort_value=lambda s: s.sparsity)


def _change(comparison: Comparison) -> Column[Setting]:
    return Column(
        heading=numbers.change_name(comparison),
        text=lambda s: numbers.change(comparison, s.change),
        sort_value=lambda s: _value(s.change),
    )


def _difference(comparison: Comparison) -> list[Column[Setting]]:
    """The difference to the reference, where something can be said about chance."""
    column = Column[Setting](
        heading=difference_name(comparison),
        text=lambda s: difference_cell(comparison, s),
        sort_value=lambda s: d.mean if (d := comparison.difference(s)) else None,
    )
    return [column] if comparison.has_intervals else []


def _minor(column: Column[Setting]) -> Column[Setting]:
    return replace(column, may_be_left_out=True)


def _ratio(
    heading: str, column: str, text: Callable[[float | None], str] = numbers.ratio
) -> Column[Setting]:
    return Column(
        heading=heading,
        text=lambda s: text(_value(s.mean(column))),
        sort_value=lambda s: _value(s.mean(column)),
    )


def _seeds(comparison: Comparison) -> Column[Setting]:
    return Column(
        heading="seeds",
        text=lambda s: numbers.seeds_of(comparison, s),
        sort_value=lambda s: len(s.finals),
    )


def _of_best(column: Column[Setting]) -> Column[Level]:
    return Column(heading=column.heading, text=lambda level: column.text(level[1]))


def _value(mean: Mean | None) -> float | None:
    return None if mean is None else mean.value


def _label(setting: Setting) -> str:
    return setting.label


def _label_and_goal(setting: Setting) -> str:
    return setting.label + (" (goal missed)" if setting.missed_goal else "")


def _sparsity(setting: Setting) -> str:
    return numbers.percent(setting.sparsity)


def _sparsity_and_goal(setting: Setting) -> str:
    missed = setting.goal is not None and setting.missed_goal
    goal = f" (goal {numbers.percent(setting.goal or 0)})" if missed else ""
    return _sparsity(setting) + goal


def _least_sparsity(level: Level) -> str:
    return f"{numbers.percent(min(level[0], level[1].sparsity))} sparsity"


def _names(settings: Sequence[Setting]) -> str:
    more = f" and {len(settings) - 3} more" if len(settings) > 3 else ""
    return (", ".join(s.label for s in settings[:3]) + more) or "none"
