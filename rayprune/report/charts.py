"""The report's charts, each described once, as Vega-Lite: drawn by the page and as a PNG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt

from rayprune.report.answer import D1_ALONE
from rayprune.report.difference_chart import differences_to_reference
from rayprune.report.marks import (
    COLOURS,
    GREY,
    MOST_TICKS,
    ROW_WIDTH,
    WIDTH,
    Record,
    dense_line,
    metric_title,
    metric_x,
    panel_title,
    points_and_lines,
    rows_y,
    series_colour,
    setting_record,
    spread_note,
    tooltip,
    value_record,
    with_sparsity,
)
from rayprune.report.measured import metric_by_latency, metric_by_size
from rayprune.report.numbers import epochs, metric_value, percent
from rayprune.report.pareto import pareto_front
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison
from rayprune.results.labels import MOST_COLOURS, counted
from rayprune.results.setting import Setting, means_by_cycle

NAMES = (
    "pareto", "latency", "size", "cost", "settings",
    "differences", "sparsity", "retraining", "peaks",
)  # fmt: skip
MOST_PANELS = 4
MOST_ROWS = 24


def make_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """The charts that have something to compare, in reading order."""
    makers: tuple[Callable[[Comparison], Plot | None], ...] = (
        pareto_front,
        metric_by_latency,
        metric_by_size,
        accuracy_by_cost,
        accuracy_by_setting,
        differences_to_reference,
        accuracy_by_sparsity,
        before_and_after,
        learning_rate_peaks,
    )
    return tuple(plot for plot in (make(comparison) for make in makers) if plot)


def accuracy_by_cost(comparison: Comparison) -> Plot | None:
    """The metric against epochs where settings differ in them, in panels by a few sparsities."""
    ticks = sorted({s.epochs for s in comparison.sparse})
    if len(ticks) < 2:
        return None
    of = "epochs of retraining" if comparison.is_brought else "epochs in all, dense run included"
    x = alt.X("epochs:Q", title=of).scale(zero=False, padding=18)
    x = x.axis(values=ticks) if len(ticks) <= MOST_TICKS else x.axis(tickMinStep=1)
    panels = _by_level([setting_record(comparison, s) for s in comparison.sparse])
    places = {(s.series, comparison.level(s), s.epochs) for s in comparison.sparse}
    # Of one colour at equal cost settings differ in more than the cost: a line would say nothing.
    line = ("series:N", "level:N") if len(places) == len(comparison.sparse) else ()
    if not 1 < len(panels) <= MOST_PANELS:
        records = [record for panel in panels.values() for record in panel]
        chart: Any = points_and_lines(comparison, records, x, line)
    else:
        width = WIDTH / len(panels) - 20
        charts = [
            points_and_lines(comparison, records, x, line, width, title=panel_title(level))
            for level, records in panels.items()
        ]
        with warnings.catch_warnings():  # one selection over all panels is what is meant
            warnings.filterwarnings("ignore", message="Automatically deduplicated")
            chart = alt.hconcat(*charts).resolve_scale(y="shared", color="shared", shape="shared")
    return Plot(
        name="cost",
        title=f"{metric_title(comparison)} against cost",
        caption="Each setting at the epochs that a separate run of it takes. "
        f"{'Up' if comparison.summary.mode == 'max' else 'Down'} and to the left is better."
        f"{spread_note(comparison)}",
        chart=chart,
    )


def accuracy_by_setting(comparison: Comparison) -> Plot | None:
    """The metric of each setting at equal cost, a panel for each of a few sparsities."""
    panels = _by_level([setting_record(comparison, s) for s in comparison.ranked])
    costs = {s.epochs for s in comparison.sparse}
    if len(comparison.sparse) < 2 or len(costs) > 1 or len(panels) > MOST_PANELS:
        return None
    charts = [_ranking(comparison, level, records[:MOST_ROWS]) for level, records in panels.items()]
    is_cut = any(len(records) > MOST_ROWS for records in panels.values())
    cut = f" The best {MOST_ROWS} of each sparsity." if is_cut else ""
    return Plot(
        name="settings",
        title=f"{metric_title(comparison)} at equal cost",
        caption=f"Every setting {_trains(comparison, max(costs))}.{spread_note(comparison)}{cut}",
        chart=alt.vconcat(*charts).resolve_scale(color="shared"),
    )


def accuracy_by_sparsity(comparison: Comparison) -> Plot | None:
    """The metric against sparsity: goals that were searched, or the cycles on the way."""
    cycles = any(row["cycle"] > 1 for s in comparison.sparse for row in s.rows)
    shown: Sequence[Setting] = comparison.ranked
    if not cycles:  # these come best first, so the best of each series and goal stays
        shown = list({(s.series, s.goal): s for s in reversed(shown)}.values())
    records = list(_along_sparsity(comparison, shown, cycles))
    ticks = sorted({round(record["kept"], 4) for record in records})
    if len(ticks) < 2:
        return None
    # The scale is that of the weights which remain: 98 % is as far from 96 % as 96 % from 92 %.
    x = alt.X("kept:Q", title="sparsity, on a logarithmic scale of the weights that remain")
    x = x.scale(type="log", reverse=True, nice=False, padding=24)
    axis: Record = {"grid": False, "labelOverlap": "greedy", "labelSeparation": 14}
    axis |= {"values": ticks} if len(ticks) <= MOST_TICKS else _round_ticks(ticks)
    x = x.axis(labelExpr="format(1 - datum.value, '.4~p')", **axis)
    lines = (
        "A line goes through the cycles of one setting, after retraining."
        if cycles
        else "Of each colour the best setting at each sparsity."
    )
    # Sparsities drawn at random are not joined: neighbours differ in more than these.
    is_joined = cycles or len({setting.goal for setting in shown}) <= MOST_TICKS
    return Plot(
        name="sparsity",
        title=f"{metric_title(comparison)} against sparsity",
        caption=f"{lines}{spread_note(comparison)}",
        chart=points_and_lines(comparison, records, x, ("path:N",) if is_joined else ()),
    )


def before_and_after(comparison: Comparison) -> Plot | None:
    """The metric just pruned and retrained, of each setting or of a single one's cycles."""
    pruned = [s for s in comparison.sparse if means_by_cycle(s, f"pruned_{comparison.metric}")]
    if not pruned:
        return None
    shown = sorted(pruned[:MOST_ROWS], key=comparison.level)
    base = alt.Chart(alt.InlineData(values=list(_retraining(comparison, shown))), width=ROW_WIDTH)
    base = base.properties(height=alt.Step(24)).encode(rows_y("row"))
    bars = base.mark_rule(strokeWidth=3, opacity=0.35, color=COLOURS[0])
    when = alt.Color("when:N", title=None).legend(orient="bottom")
    when = when.scale(domain=["just pruned", "retrained"], range=[GREY, COLOURS[0]])
    points = (
        base.transform_fold(["before", "value"], as_=["end", "metric"])
        .transform_calculate(when="datum.end == 'before' ? 'just pruned' : 'retrained'")
        .mark_point(filled=True, size=90, opacity=1)
        .encode(metric_x(comparison, "metric"), when, tooltip=tooltip(comparison, "just pruned"))
    )
    cut = f" The best {len(shown)} of {len(pruned)} settings." if len(pruned) > len(shown) else ""
    return Plot(
        name="retraining",
        title="What retraining brings back",
        caption=f"{metric_title(comparison)} just after the prune step and after retraining.{cut}",
        chart=alt.layer(
            *dense_line(comparison, "x"),
            bars.encode(metric_x(comparison, "before"), alt.X2("value")),
            points,
        ),
    )


def learning_rate_peaks(comparison: Comparison) -> Plot | None:
    """ALLR's factor d on the peak learning rate, by cycle or, with one cycle, by setting."""
    shown = [s for s in comparison.sparse if means_by_cycle(s, "d")][:MOST_COLOURS]
    records: list[Record] = [
        {"row": with_sparsity(comparison, s), "cycle": cycle, "of": of, "factor": mean.value}
        for s in sorted(shown, key=lambda s: (comparison.level(s), s.epochs))
        for of in ("d", "d1", "d2")
        for cycle, mean in means_by_cycle(s, of).items()
    ]
    factors = [record for record in records if record["of"] == "d"]
    if len(factors) < 2:
        return None
    is_by_cycle = any(record["cycle"] > 1 for record in records)
    return Plot(
        name="peaks",
        title="ALLR's learning-rate peaks",
        caption=_how_peaks_are_made(comparison),
        chart=_peaks_by_cycle(factors) if is_by_cycle else _peaks_by_setting(records),
    )


def _trains(comparison: Comparison, count: float) -> str:
    """What all settings of one cost train."""
    if comparison.is_brought:
        return f"retrains for {counted(count, 'epoch')}"
    return f"trains {epochs(count)} epochs in all"


def _how_peaks_are_made(comparison: Comparison) -> str:
    d1 = "d1 measures what pruning took from the weights' norm"
    if comparison.has_d1_alone:
        return f"The peak is d times optim.lr, d = min(1, d1): {d1}. {D1_ALONE}."
    of = "optim.lr" if comparison.is_brought else "the dense run's"
    share = "that the network was trained for" if comparison.is_brought else "of the dense run"
    return (
        f"The peak is d times {of}, d = min(1, max(d1, d2)): {d1}, d2 is the cycle's share of the "
        f"epochs {share}."
    )


def _round_ticks(values: Sequence[float]) -> Record:
    """Round numbers across a logarithmic axis: .2, .1, .05; few where they lie close together."""
    lowest, highest = min(v for v in values if v > 0), max(values)
    powers = range(math.floor(math.log10(lowest)), 1)
    ticks = (digit * 10.0**power for power in powers for digit in (1, 1.5, 2, 3, 5, 7))
    inside = [round(tick, 9) for tick in ticks if lowest <= tick <= highest]
    return {"values": inside} if len(inside) > 2 else {"tickCount": 6}


def _ranking(comparison: Comparison, level: float, records: Sequence[Record]) -> Any:
    """The settings of one sparsity below each other, best first."""
    base = alt.Chart(alt.InlineData(values=list(records)), width=ROW_WIDTH, height=alt.Step(22))
    base = base.encode(rows_y("setting"), series_colour(comparison).legend(None))
    bars = base.mark_rule(strokeWidth=2).encode(metric_x(comparison, "low"), alt.X2("high"))
    points = base.mark_point(filled=True, size=90, opacity=1)
    points = points.encode(metric_x(comparison, "value"), tooltip=tooltip(comparison))
    chart = alt.layer(*dense_line(comparison, "x"), bars, points)
    return chart.properties(title=panel_title(level))


def _along_sparsity(
    comparison: Comparison, shown: Sequence[Setting], cycles: bool
) -> Iterator[Record]:
    """A record for each setting and each of its cycles that has zeros."""
    for setting in shown:
        sparsity = means_by_cycle(setting, "sparsity")
        for cycle, mean in means_by_cycle(setting, comparison.metric).items():
            if sparsity[cycle].value > 1e-6:
                yield value_record(comparison, setting, mean) | {
                    "kept": 1 - sparsity[cycle].value,
                    "sparsity": percent(sparsity[cycle].value),
                    "path": with_sparsity(comparison, setting) if cycles else setting.series,
                }


def _retraining(comparison: Comparison, shown: Sequence[Setting]) -> Iterator[Record]:
    """A record for each setting's last cycle; of a single setting, for all its cycles."""
    for setting in shown:
        before = means_by_cycle(setting, f"pruned_{comparison.metric}")
        after = means_by_cycle(setting, comparison.metric)
        sparsity = means_by_cycle(setting, "sparsity")
        for cycle in before if len(shown) == 1 else [max(before)]:
            name = f"cycle {cycle}, {percent(sparsity[cycle].value)} sparsity"
            yield value_record(comparison, setting, after[cycle]) | {
                "before": before[cycle].value,
                "just pruned": metric_value(comparison, before[cycle]),
                "row": name if len(shown) == 1 else with_sparsity(comparison, setting),
            }


def _peaks_by_cycle(factors: Sequence[Record]) -> alt.Chart:
    y = alt.Y("factor:Q", title="d").scale(domain=[0, 1])
    rows = {record["row"]: None for record in factors}
    colour = alt.Color("row:N", title=None, sort=None).scale(range=COLOURS)
    colour = colour.legend(orient="bottom", columns=2) if len(rows) > 1 else colour.legend(None)
    base = alt.Chart(alt.InlineData(values=list(factors)), width=WIDTH, height=260)
    lines = base.mark_line(point={"size": 70, "filled": True})
    return lines.encode(alt.X("cycle:O").axis(labelAngle=0), y, colour, tooltip=_factor_tooltip())


def _peaks_by_setting(records: Sequence[Record]) -> alt.Chart:
    """d1 and d2 of each setting, and a ring around the one that became d."""
    there = {record["of"] for record in records}  # d2 only where the dense epochs are known
    kinds = [of for of in ("d", "d1", "d2") if of in there]
    colours, shapes = [GREY, *COLOURS[:2]], ["circle", "triangle-up", "triangle-down"]
    colours, shapes = colours[: len(kinds)], shapes[: len(kinds)]
    x = alt.X("factor:Q", title="factor on the largest learning rate before pruning")
    x = x.scale(domain=[0, 1]).axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1])
    base = alt.Chart(alt.InlineData(values=list(records)), width=ROW_WIDTH, height=alt.Step(24))
    return base.mark_point(strokeWidth=2).encode(
        x,
        rows_y("row"),
        alt.Color("of:N", title=None, sort=kinds).scale(domain=kinds, range=colours),
        alt.Shape("of:N", title=None, sort=kinds).scale(domain=kinds, range=shapes),
        size=alt.condition("datum.of == 'd'", alt.value(260), alt.value(60)),
        tooltip=_factor_tooltip(),
    )


def _factor_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("row:N", title="setting"),
        alt.Tooltip("cycle:O"),
        alt.Tooltip("of:N", title="factor"),
        alt.Tooltip("factor:Q", format=".3f", title="value"),
    ]


def _by_level(records: Sequence[Record]) -> dict[float, list[Record]]:
    """Records of each sparsity, the lowest first; within one the order stays."""
    levels = sorted({record["level"] for record in records})
    return {level: [r for r in records if r["level"] == level] for level in levels}
