"""The chart of a study with several goals: the first against the second, with the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from rayprune.report.marks import (
    GREY,
    WIDTH,
    Record,
    counted_x,
    dense_line,
    metric_y,
    series_colour,
    series_shape,
    setting_record,
    spread_note,
    tooltip,
)
from rayprune.report.numbers import goal_value
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison
from rayprune.results.labels import metric_name
from rayprune.results.setting import Setting

FRONT = ("on the front", "others")


def pareto_front(comparison: Comparison) -> Plot | None:
    """The first goal against the second, coloured by series: the front large and, of two goals,
    joined."""
    front = {id(setting) for setting in comparison.front}
    if not front:
        return None
    first, second, *others = comparison.summary.metrics
    shown = [s for s in comparison.ranked if s.mean(second)]
    records = [_goals_record(comparison, s, is_on=id(s) in front) for s in shown]
    base = alt.Chart(alt.InlineData(values=records), width=WIDTH, height=320)
    x = _goal_x(comparison, second, [record["second"] for record in records])
    base = base.encode(x, metric_y(comparison, "value"))
    is_on = f"datum.front == '{FRONT[0]}'"
    order: dict[str, Any] = {"title": None, "sort": [*FRONT]}
    size, opacity = alt.Size("front:N", **order), alt.Opacity("front:N", **order)
    legend: Record = {"orient": "bottom", "symbolFillColor": GREY, "symbolStrokeColor": GREY}
    points = base.mark_point(filled=True, opacity=1).encode(
        series_colour(comparison),
        series_shape(comparison),
        size.scale(domain=[*FRONT], range=[130, 60]).legend(**legend),
        opacity.scale(domain=[*FRONT], range=[1, 0.4]).legend(**legend),
        tooltip=[*tooltip(comparison), *map(_goal_tooltip, (second, *others))],
    )
    marked = base.transform_filter(is_on)
    bars = marked.mark_rule(strokeWidth=1.5).encode(series_colour(comparison))
    layers: list[Any] = dense_line(comparison, "y")
    if not others:  # of more goals the front is no line
        layers.append(marked.mark_line(strokeWidth=1.5, color=GREY))
    layers.append(bars.encode(metric_y(comparison, "low"), alt.Y2("high")))
    names = " and ".join(map(metric_name, others))
    hidden = (
        f" A point that looks beaten here may be on the front for its {names}, told when it is "
        "pointed at."
    )
    return Plot(
        name="pareto",
        title=f"Pareto front: {metric_name(first)} and {metric_name(second)}",
        caption=f"{_better(comparison)}{hidden if others else ''}{spread_note(comparison)}",
        chart=alt.layer(*layers, points),
    )


def _goals_record(comparison: Comparison, setting: Setting, *, is_on: bool) -> Record:
    """A setting with all its goals."""
    second = comparison.summary.metrics[1]
    told = {g: goal_value(comparison, g, setting.mean(g)) for g in comparison.summary.metrics[1:]}
    place = {"second": setting.value(second), "front": FRONT[0 if is_on else 1]}
    return setting_record(comparison, setting) | place | {f"goal {g}": t for g, t in told.items()}


def _better(comparison: Comparison) -> str:
    """Where on the chart of two goals the better settings lie."""
    first, second = comparison.summary.modes[:2]
    up, right = "Up" if first == "max" else "Down", "right" if second == "max" else "left"
    return f"{up} and to the {right} is better."


def _goal_tooltip(goal: str) -> alt.Tooltip:
    return alt.Tooltip(f"goal {goal}:N", title=metric_name(goal))


def _goal_x(comparison: Comparison, goal: str, values: Sequence[float]) -> alt.X:
    """A goal as the horizontal axis."""
    if comparison.is_in_percent(goal):
        x = alt.X("second:Q", title=metric_name(goal))
        return x.scale(zero=False, padding=18).axis(format=".3~%", tickCount=7)
    return counted_x("second", goal, values)
