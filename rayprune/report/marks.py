"""What the report's charts are made of: records, axes, colours, the dense line, a panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from rayprune.report.numbers import change, change_name, metric_value, num_seeds, percent
from rayprune.results.comparison import Comparison
from rayprune.results.labels import MOST_COLOURS, UNITS, metric_name, with_unit
from rayprune.results.setting import Mean, Setting

WIDTH = 800
ROW_WIDTH = WIDTH - 200  # of charts with names at their side
WIDE = 5.0  # from such a range of numbers on, their axis is logarithmic
LONG = 40  # letters of a setting's name that may be too many beside a chart
MOST_TICKS = 12  # different values that are ticks of their own, and neighbours on a line
MANY = 60  # from so many points on, no lines and no error bars
# Okabe and Ito's colours, made readable on white and on black alike, and six more.
COLOURS = (
    "#1478be", "#e07b00", "#009e73", "#cc79a7", "#56b4e9",
    "#b8a200", "#d5462c", "#8a63d2", "#7f7f7f", "#8c6239", "#b0b0b0",
)  # fmt: skip
GREY = "#8c8c8c"
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
SMALL = 11  # font size beside the axes' 12

Record = dict[str, Any]


def theme(*, dark: bool = False) -> dict[str, Any]:
    """Vega's config: the same quiet look on light and on dark."""
    ink, line = ("#d7dce2", "#363c45") if dark else ("#2a2f36", "#e4e7eb")
    words = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    words |= {"titleFontWeight": "normal"}
    return {
        "background": "transparent" if dark else "white",
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
        "view": {"stroke": None},
        "axis": words | {"gridColor": line, "domainColor": GREY, "tickColor": GREY},
        "legend": words | {"symbolSize": 90, "labelLimit": 320},
        "title": {"color": ink, "fontSize": 15, "anchor": "start", "offset": 12},
        "text": {"color": ink},
    }


def setting_record(comparison: Comparison, setting: Setting) -> Record:
    """A setting's last cycle, for a chart's data."""
    mean = setting.mean(comparison.metric)
    assert mean is not None
    return value_record(comparison, setting, mean) | {"epochs": setting.epochs}


def value_record(comparison: Comparison, setting: Setting, mean: Mean) -> Record:
    """A value of the metric at one of the setting's cycles."""
    has_colour = setting.series in comparison.series[:MOST_COLOURS]
    return {
        "setting": with_reached(setting),
        "series": setting.series if has_colour else "others",
        "level": comparison.level(setting),
        "sparsity": percent(setting.sparsity),
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "shown": metric_value(comparison, mean),
        "change": change(comparison, setting.change),
        "seeds": mean.num_seeds,
    }


def with_reached(setting: Setting) -> str:
    """The label, with the sparsity reached where that is not the goal."""
    is_at_goal = setting.goal is not None and not setting.missed_goal
    return setting.label if is_at_goal else f"{setting.label} ({percent(setting.sparsity)})"


def with_sparsity(comparison: Comparison, setting: Setting) -> str:
    """The label, with its sparsity where settings differ in it; before labels that may be cut."""
    if len({s.goal for s in comparison.sparse}) < 2:
        return setting.label
    parts = [setting.label, percent(setting.sparsity)]
    is_long = any(len(s.label) > LONG for s in comparison.sparse)
    return ", ".join(reversed(parts) if is_long else parts)


def metric_title(comparison: Comparison) -> str:
    """The metric's name at the start of a line."""
    name = metric_name(comparison.metric)
    return name[0].upper() + name[1:]


def metric_x(comparison: Comparison, field: str) -> alt.X:
    """The metric as the horizontal axis."""
    axis: Record = {"tickCount": 7} | ({"format": ".2~%"} if comparison.is_fraction else {})
    x = alt.X(f"{field}:Q", title=metric_name(comparison.metric))
    return x.scale(zero=False, nice=True, padding=12).axis(**axis)


def metric_y(comparison: Comparison, field: str) -> alt.Y:
    """The metric as the vertical axis."""
    axis: Record = {"format": ".2~%"} if comparison.is_fraction else {}
    y = alt.Y(f"{field}:Q", title=metric_name(comparison.metric))
    return y.scale(zero=False, padding=14).axis(**axis)


def counted_x(field: str, column: str, values: Sequence[float]) -> alt.X:
    """What is counted or measured as the horizontal axis, logarithmic where it goes far."""
    is_wide = min(values) > 0 and max(values) > WIDE * min(values)
    scale: Record = {"type": "log", "nice": False} if is_wide else {"zero": False}
    # 0.005 would be "5m" as 42,000 is "42k", and milli is what the unit says.
    axis: Record = {"format": ",.6~r" if column in UNITS else "~s", "tickCount": 7}
    return alt.X(f"{field}:Q", title=with_unit(column)).scale(padding=18, **scale).axis(**axis)


def rows_y(field: str) -> alt.Y:
    """One row for each name, in the order of the data."""
    axis: Record = {"labelLimit": 360, "domain": False, "ticks": False}
    return alt.Y(f"{field}:N", title=None, sort=None).axis(**axis)


def series_colour(comparison: Comparison) -> alt.Color:
    """A colour for each series, the best setting's first; no legend for a single one."""
    domain = _domain(comparison)
    colour = alt.Color("series:N", title=None, sort=domain)
    colour = colour.scale(domain=domain, range=COLOURS[: len(domain)])
    return colour if len(domain) > 1 else colour.legend(None)


def series_shape(comparison: Comparison) -> alt.Shape:
    """A shape for each series, so that colour is not all that tells them apart."""
    domain = _domain(comparison)
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(domain))]
    shape = alt.Shape("series:N", title=None, sort=domain).scale(domain=domain, range=shapes)
    return shape if len(domain) > 1 else shape.legend(None)


def _domain(comparison: Comparison) -> list[str]:
    series = list(comparison.series)
    return series if len(series) <= MOST_COLOURS else [*series[:MOST_COLOURS], "others"]


def tooltip(comparison: Comparison, *extra: str) -> list[alt.Tooltip]:
    """What a point says when it is pointed at."""
    names = {"setting": "setting", "sparsity": "sparsity"} | {name: name for name in extra}
    names |= {
        "shown": metric_name(comparison.metric),
        "change": change_name(comparison),
        "seeds": "seeds",
    }
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in names.items()]


def dense_line(comparison: Comparison, axis: str) -> list[alt.LayerChart]:
    """A dashed line across `axis` at the dense run's metric, with its value beside it."""
    dense = comparison.dense
    if dense is None:
        return []
    value = {"dense": dense.value, "text": f"dense {metric_value(comparison, dense)}"}
    base = alt.Chart(alt.InlineData(values=[value]))
    rule = base.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=GREY)
    words = alt.Text("text:N")
    if axis == "y":
        y = metric_y(comparison, "dense")
        text = base.mark_text(fontSize=SMALL, align="left", baseline="bottom", dx=6, dy=-4)
        return [rule.encode(y) + text.encode(y, words, x=alt.value(0))]
    x = metric_x(comparison, "dense")
    text = base.mark_text(fontSize=SMALL, baseline="bottom", dy=-5)  # above the panel
    return [rule.encode(x) + text.encode(x, words, y=alt.value(0))]


def points_and_lines(
    comparison: Comparison,
    records: Sequence[Record],
    x: alt.X,
    line: Sequence[str],
    width: float = WIDTH,
    title: alt.TitleParams | None = None,
    told: Sequence[str] = (),
    order: str | None = None,
) -> Any:
    """The metric over `x`: points with error bars, joined where they share the fields of `line`.

    Without such fields nothing is joined. `told` are further fields that a point says, and `order`
    is a field along which a line goes instead of `x`.
    """
    base = alt.Chart(alt.InlineData(values=list(records)), width=width, height=320)
    crowded = len(records) > MANY
    pick = alt.selection_point(name="series", fields=["series"], bind="legend")
    seen = alt.condition(pick, alt.value(0.45 if crowded else 1.0), alt.value(0.08))
    base = base.encode(x, metric_y(comparison, "value"), series_colour(comparison), opacity=seen)
    layers: list[Any] = dense_line(comparison, "y")
    if line and not crowded:
        along = {} if order is None else {"order": order}
        layers.append(base.mark_line(strokeWidth=1.5).encode(detail=list(line), **along))
    if not crowded:
        layers.append(
            base.mark_rule(strokeWidth=1.5).encode(metric_y(comparison, "low"), alt.Y2("high"))
        )
    points = base.mark_point(filled=True, size=70)
    points = points.encode(series_shape(comparison), tooltip=tooltip(comparison, *told))
    chart = alt.layer(*layers, points.add_params(pick))
    return chart if title is None else chart.properties(title=title)


def panel_title(level: float, more: str = "", offset: int = 20) -> alt.TitleParams:
    """Of a panel with one sparsity."""
    return alt.Title(f"{percent(level)} sparsity{more}", fontSize=12, anchor="start", offset=offset)


def spread_note(comparison: Comparison) -> str:
    """What error bars are, for a caption; empty with one seed."""
    seeds = max(len(s.finals) for s in comparison.sparse)
    if seeds < 2:
        return ""
    return f" Bars: the standard deviation over {num_seeds(seeds)}, no test of a difference."
