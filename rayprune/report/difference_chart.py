"""The chart of what seeds say: each setting's difference to the reference, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from rayprune.report.differences import reference_name, seeds_paired, shown
from rayprune.report.marks import COLOURS, GREY, ROW_WIDTH, Record, panel_title, rows_y
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison
from rayprune.results.labels import metric_name
from rayprune.results.paired import Difference
from rayprune.results.setting import Setting

MOST_ROWS = 24
WIDEST = 3.0  # times what the means span: intervals beyond it are cut, or no mean could be seen
VERDICTS = {
    "better": ("better", COLOURS[2], "triangle-right"),
    "worse": ("worse", COLOURS[6], "triangle-left"),
    "alike": ("cannot be told apart", GREY, "circle"),
}

Known = tuple[Setting, Difference, tuple[float, float]]  # the last is its interval


def differences_to_reference(comparison: Comparison) -> Plot | None:
    """Each setting's difference to the reference with its interval, a panel for each sparsity."""
    panels = {
        level: (reference, _known(comparison, reference))
        for level, reference in comparison.references.items()
    }
    charts = [
        _panel(comparison, level, reference, known[:MOST_ROWS])
        for level, (reference, known) in panels.items()
        if known
    ]
    if not charts:
        return None
    name, metric = reference_name(comparison), metric_name(comparison.compared_by)
    to = "the reference of its sparsity" if name == "reference" else name
    seeds = seeds_paired(comparison, comparison.settings)
    is_cut = any(len(known) > MOST_ROWS for _, known in panels.values())
    cut = f" The best {MOST_ROWS} of each sparsity." if is_cut else ""
    missed = any(s.missed_goal for s in comparison.sparse)
    left_out = " Settings that missed their goal are left out." if missed else ""
    return Plot(
        name="differences",
        title=f"Differences to {'the reference' if name == 'reference' else name}",
        caption=f"{metric[0].upper()}{metric[1:]} minus that of {to} with the same seed, with 95 % "
        f"intervals over {seeds} (Holm's correction at each sparsity). One that crosses "
        "the line at 0 cannot be told apart; one that ends at the edge goes on."
        f"{cut}{left_out}",
        chart=alt.vconcat(*charts).resolve_scale(color="shared", shape="shared"),
    )


def _known(comparison: Comparison, reference: Setting) -> list[Known]:
    """What has an interval, the largest difference in favour first."""
    pairs = comparison.differences_to(reference)
    known = [(s, d, d.interval) for s, d in pairs if d is not None and d.interval is not None]
    return sorted(known, key=lambda one: -comparison.quality(one[1].mean))


def _panel(comparison: Comparison, level: float, reference: Setting, known: Sequence[Known]) -> Any:
    records = [_record(comparison, *one) for one in known]
    base = alt.Chart(alt.InlineData(values=records), width=ROW_WIDTH, height=alt.Step(22))
    names, colours, shapes = map(list, zip(*VERDICTS.values(), strict=True))
    colour = alt.Color("verdict:N", title=None, sort=names)
    colour = colour.scale(domain=names, range=colours).legend(orient="bottom")
    shape = alt.Shape("verdict:N", title=None, sort=names).scale(domain=names, range=shapes)
    base = base.encode(rows_y("setting"), colour)
    bars = base.mark_rule(strokeWidth=2, clip=True)
    points = base.mark_point(filled=True, size=90, opacity=1)
    told = [("setting", "setting"), ("shown", "difference"), ("verdict", ""), ("seeds", "seeds")]
    tooltip = [alt.Tooltip(f"{field}:N", title=title) for field, title in told]
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeWidth=1.5, color=GREY)
    x = _axis(comparison, records)
    layers = (
        zero.encode(x("zero")),
        bars.encode(x("low"), alt.X2("high")),
        points.encode(x("mean"), shape, tooltip=tooltip),
    )
    is_said = reference_name(comparison) == reference.label  # in the chart's title
    against = "" if is_said else f", against {reference.label}"
    return alt.layer(*layers).properties(title=panel_title(level, against, offset=6))


def _record(
    comparison: Comparison, setting: Setting, difference: Difference, interval: tuple[float, float]
) -> Record:
    scale = 100 if comparison.is_fraction else 1
    verdict = comparison.verdict(difference)
    assert verdict is not None
    return {
        "setting": setting.label,
        "mean": scale * difference.mean,
        "low": scale * interval[0],
        "high": scale * interval[1],
        "shown": shown(comparison, difference),
        "verdict": VERDICTS[verdict][0],
        "seeds": difference.num_pairs,
    }


def _axis(comparison: Comparison, records: Sequence[Record]) -> Any:
    """Field -> the horizontal axis, with 0, all means, and as much of the intervals as is read."""
    means = [0.0, *(record["mean"] for record in records)]
    low, high = min(means), max(means)
    room = WIDEST * (high - low or 1.0)
    ends = (
        max(low - room, min(0.0, *(record["low"] for record in records))),
        min(high + room, max(0.0, *(record["high"] for record in records))),
    )
    unit = ", points" if comparison.is_fraction else ""
    title = f"difference in {metric_name(comparison.compared_by)}{unit}"

    def x(field: str) -> alt.X:
        ticks = "datum.value == 0 ? '0' : format(datum.value, '+~r')"
        axis = alt.X(f"{field}:Q", title=title).axis(tickCount=7, labelExpr=ticks)
        return axis.scale(domain=ends, nice=True, padding=8)

    return x
