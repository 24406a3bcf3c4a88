"""What was tried before anything was reported: how often, what was chosen, with which results."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from rayprune.report.answer import epochs_tuning
from rayprune.report.columns import Column
from rayprune.report.numbers import MISSING, metric_value, percent
from rayprune.results.comparison import Comparison
from rayprune.results.grouping import grouped
from rayprune.results.labels import metric_name, said
from rayprune.results.setting import Setting, mean_of


def tries_caption(comparison: Comparison) -> str:
    """Who chose, by what, and what it took."""
    metric, cost = metric_name(comparison.metric), epochs_tuning(comparison)
    return (
        f"Values were chosen for each setting by the {metric} of its tries, on seeds of their own "
        "(a failed try is not counted here); "
        f"all other results are of other seeds{f', and {cost}' if cost else ''}."
    )


def tries_columns(comparison: Comparison) -> list[Column[Setting]]:
    """How often a setting was tried, what was chosen, and the metric of its tries."""

    def metric(name: str, of: Callable[[list[float]], float]) -> Column[Setting]:
        def value(setting: Setting) -> float | None:
            values = _values(comparison, setting)
            return of(values) if values else None

        return Column(
            heading=f"{name}, {metric_name(comparison.metric)}",
            text=lambda s: metric_value(comparison, value(s)),
            sort_value=value,
        )

    best, worst = (max, min) if comparison.summary.mode == "max" else (min, max)
    return [
        Column(
            heading="setting", text=lambda s: s.label, sort_value=lambda s: s.label, is_text=True
        ),
        Column(heading="goal", text=_goal, sort_value=lambda s: s.goal),
        Column(
            heading="tries",
            text=lambda s: f"{len(_values(comparison, s))}",
            sort_value=lambda s: len(_values(comparison, s)),
        ),
        Column(
            heading="chosen",
            text=lambda s: chosen(comparison, s),
            sort_value=lambda s: chosen(comparison, s),
            is_text=True,
            may_wrap=True,
        ),
        metric("best try", best),
        metric("median", statistics.median),
        metric("worst", worst),
    ]


def chosen(comparison: Comparison, setting: Setting) -> str:
    """The values that a setting was reported with: "lr=0.1, epochs=3"."""
    row = setting.finals[0]
    return ", ".join(said({name: row.get(name) for name in comparison.summary.tuned})) or MISSING


def _values(comparison: Comparison, setting: Setting) -> list[float]:
    """The metric of each try that ended with one: the mean over the seeds of tuning."""
    tries = grouped(comparison.tries_of(setting), comparison.summary.tuned)
    means = (mean_of(row[comparison.metric] for row in rows) for rows in tries)
    return [mean.value for mean in means if mean is not None]


def _goal(setting: Setting) -> str:
    return MISSING if setting.goal is None else percent(setting.goal)
