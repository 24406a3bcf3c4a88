"""Charts of networks as files: the metric against their milliseconds and their megabytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from rayprune.report.deployed import (
    dense_runtimes,
    dense_ways,
    is_fastest_here,
    ways,
    where_measured,
)
from rayprune.report.marks import (
    GREY,
    MANY,
    MOST_TICKS,
    Record,
    counted_x,
    metric_title,
    metric_y,
    points_and_lines,
    setting_record,
    spread_note,
)
from rayprune.report.numbers import goal_value, limit_value, metric_value, ratio, speedup
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison
from rayprune.results.labels import metric_name
from rayprune.results.setting import Setting

SOLID, *DASHES = [1, 0], [7, 4], [2, 3]  # the limit, and dense networks


def metric_by_latency(comparison: Comparison) -> Plot | None:
    """The metric against the milliseconds of a pass, where settings were measured."""
    if not comparison.has_measurements:
        return None
    dense = {"latency_ms": f"in {dense_ways(comparison)}"}
    if is_fastest_here(comparison):  # measured twice, it is the same network in the same runtime
        dense["latency_ms"] += ", its fastest"
    else:
        dense["dense_latency_ms"] = f"in {dense_runtimes(comparison)}, its fastest"
    caption = f"{where_measured(comparison)}. "
    return _plot(comparison, "latency", "latency_ms", dense, caption)


def metric_by_size(comparison: Comparison) -> Plot | None:
    """The metric against the megabytes of the file, where settings were measured."""
    if not comparison.has_measurements:
        return None
    caption = f"The file for {ways(comparison)} as it lies on disk, 1 MB = 10⁶ bytes. "
    return _plot(comparison, "size", "file_mb", {"file_mb": ""}, caption)


def _plot(
    comparison: Comparison, name: str, column: str, dense_columns: dict[str, str], caption: str
) -> Plot | None:
    """`dense_columns` are those of the dense network that stand on the same axis, with words."""
    shown = [s for s in comparison.ranked if s.mean(column)]
    if not shown:
        return None
    records = [_record(comparison, setting, column) for setting in shown]
    lines = _lines(comparison, column, dense_columns)
    places = [record["place"] for record in (*records, *lines)]
    x = counted_x("place", column, places)
    told = (metric_name(column), "measured speed-up", "in theory")
    is_joined = _are_joined(shown)
    line = ("path:N",) if is_joined else ()
    chart = points_and_lines(comparison, records, x, line, told=told, order="kept:Q")
    up = "Up" if comparison.summary.mode == "max" else "Down"
    joined = " A line goes through the sparsities of one colour." if is_joined else ""
    return Plot(
        name=name,
        title=f"{metric_title(comparison)} against {metric_name(column)}",
        caption=f"{caption}{up} and to the left is better.{joined}{spread_note(comparison)}",
        chart=alt.layer(chart, *_drawn(comparison, lines, x)) if lines else chart,
    )


def _are_joined(settings: Sequence[Setting]) -> bool:
    """Whether settings of one colour differ in their sparsity alone, of which there are a few.

    Where they differ in more, or in sparsities drawn at random, a line would say nothing.
    """
    places = {(s.series, s.goal) for s in settings}
    is_one_each = len({s.series for s in settings}) == len(settings)
    is_alone = len(places) == len(settings) <= MANY and not is_one_each
    return is_alone and len({s.goal for s in settings}) <= MOST_TICKS


def _record(comparison: Comparison, setting: Setting, column: str) -> Record:
    """A setting with what was measured of it."""
    measured, theoretical = (
        setting.mean(f"{kind}_speedup") for kind in ("measured", "theoretical")
    )
    return setting_record(comparison, setting) | {
        "place": setting.value(column),
        "kept": 1 - setting.sparsity,
        "path": setting.series,
        metric_name(column): goal_value(comparison, column, setting.mean(column)),
        "measured speed-up": speedup(measured.value if measured else None),
        "in theory": ratio(theoretical.value if theoretical else None),
    }


def _lines(comparison: Comparison, column: str, dense_columns: dict[str, str]) -> list[Record]:
    """What stands across the axis: the limit that the study sets, and the dense network."""
    lines: list[Record] = []
    if limit := comparison.summary.within.get(column):
        said = f"limit: {limit_value(column, limit)}"
        lines.append({"line": said, "place": limit, "dash": SOLID})
    for (dense_column, words), dash in zip(dense_columns.items(), DASHES, strict=False):
        mean = comparison.dense_mean(dense_column)
        if mean is not None and comparison.dense is not None:
            said = f"{' '.join(filter(None, ['dense', words]))}: "
            said += goal_value(comparison, column, mean)
            place = {"place": mean.value, "dense": comparison.dense.value}
            shown = metric_value(comparison, comparison.dense)
            lines.append({"line": said, "dash": dash, **place, "shown": shown})
    return lines


def _drawn(comparison: Comparison, lines: Sequence[Record], x: alt.X) -> list[Any]:
    """A rule for each, told apart by their dashes below the chart: labels beside would collide."""
    names = [line["line"] for line in lines]
    dash = alt.StrokeDash("line:N", title=None, sort=names)
    dash = dash.scale(domain=names, range=[line["dash"] for line in lines])
    dash = dash.legend(
        orient="bottom", columns=1, labelLimit=600, symbolStrokeColor=GREY, symbolSize=500
    )
    base = alt.Chart(alt.InlineData(values=list(lines)))
    rules = base.mark_rule(strokeWidth=1.5, color=GREY).encode(x, dash)
    dense = [line for line in lines if "dense" in line]
    if not dense:
        return [rules]
    points = alt.Chart(alt.InlineData(values=dense)).mark_point(
        shape="diamond", filled=True, size=110, color=GREY, opacity=1
    )
    tooltip = [
        alt.Tooltip("line:N", title="network"),
        alt.Tooltip("shown:N", title=metric_name(comparison.metric)),
    ]
    return [rules, points.encode(x, metric_y(comparison, "dense"), tooltip=tooltip)]
