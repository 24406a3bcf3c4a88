"""Numbers as people read them: one place for every format of the page, a terminal, the charts."""

from __future__ import annotations

import math

from rayprune.results.comparison import TOLERATED_LOSS, Comparison
from rayprune.results.labels import UNITS, counted
from rayprune.results.setting import Mean, Setting

MISSING = "–"


def percent(fraction: float, digits: int = 2) -> str:
    """0.95 is "95 %": no zeros at the end, and never 100 % for a little less."""
    shown = f"{100 * fraction:.{digits}f}"
    if shown == f"{100:.{digits}f}" and fraction < 1:
        shown = f"{100 * fraction:.5f}"
    return f"{shown.rstrip('0').rstrip('.')} %"


def metric_value(
    comparison: Comparison,
    mean: Mean | float | None,
    unit: str = " %",
    column: str | None = None,
) -> str:
    """A value of the metric, with its spread: "88.62 ± 0.14 %", a loss as "0.3412".

    `column` is another metric that it is of.
    """
    if mean is None:
        return MISSING
    value, spread = (mean.value, mean.spread) if isinstance(mean, Mean) else (mean, None)
    in_percent = comparison.is_in_percent(column) if column else comparison.is_fraction
    if not in_percent:
        return f"{value:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "") + unit


def goal_value(
    comparison: Comparison, goal: str, mean: Mean | float | None, unit: str = " %"
) -> str:
    """A value of one of the study's goals, in its own unit: "88.62 %", "42,651", "20.0x"."""
    if mean is None:
        return MISSING
    value = mean.value if isinstance(mean, Mean) else mean
    if goal in ("compression", "theoretical_speedup"):
        return ratio(value)
    if goal in ("num_nonzero", "flops_nonzero"):
        return f"{value:,.0f}"
    if goal == "total_epochs":
        return epochs(value)
    if goal == "sparsity":
        return percent(value)
    if goal in UNITS:
        return measured(value, UNITS[goal])
    return metric_value(comparison, mean, unit, column=goal)


def tolerance(comparison: Comparison) -> str:
    """The loss against dense that is tolerated: "one point", "0.5 points", of a loss "0.02"."""
    tolerated = comparison.summary.within_dense
    if tolerated is None:
        return "one point" if comparison.is_fraction else percent(TOLERATED_LOSS)
    if not comparison.is_fraction:
        return f"{tolerated:.4g}"
    points = float(f"{100 * tolerated:.4g}")
    return "one point" if points == 1 else counted(points, "point")


def change(comparison: Comparison, mean: Mean | None, digits: int = 2) -> str:
    """A difference of two metrics, in points where the metric is in percent: "-0.83 ± 0.12"."""
    if mean is None:
        return MISSING
    if not comparison.is_fraction:
        return f"{mean.value:+.3g}" + (f" ± {mean.spread:.2g}" if mean.spread is not None else "")
    shown = points(mean.value, digits)
    return shown + (f" ± {100 * mean.spread:.{digits}f}" if mean.spread is not None else "")


def points(value: float, digits: int = 2) -> str:
    """A difference of two fractions in points: -0.0083 is "-0.83", and 0 has no sign."""
    shown = f"{100 * value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(shown) == 0 else shown


def amount(comparison: Comparison, value: float, digits: int | None = None) -> str:
    """How much of the metric, without a sign or a unit: 2.2 points are "2.2", of a loss "0.031".

    Points have one digit, or two where one would hide a small number, or `digits`.
    """
    if not comparison.is_fraction:
        return f"{value:.3g}"
    usual = 1 if value >= 0.0005 else 2
    return f"{100 * value:.{usual if digits is None else digits}f}"


def dense_name(comparison: Comparison) -> str:
    """What a setting is compared with: a dense run, or a network that was trained elsewhere."""
    return "dense network" if comparison.is_brought else "dense run"


def short_change(comparison: Comparison, mean: Mean) -> str:
    """A change with one decimal, two where one would hide a small number: "-0.8", "-0.03"."""
    smallest = min(abs(x) for x in (mean.value, mean.spread) if x is not None)
    return change(comparison, mean, digits=1 if smallest >= 0.0005 else 2)


def change_name(comparison: Comparison) -> str:
    """What changes are called, with their unit."""
    return "vs dense, points" if comparison.is_fraction else "vs dense"


def ratio(value: float | None) -> str:
    """How many times as much: 4.94 is "4.9x"."""
    return MISSING if value is None else f"{value:.1f}x"


def speedup(value: float | None) -> str:
    """A measured speed-up: 2.43 is "2.4x"; what is slower has digits enough, as "0.83x"."""
    if value is None:
        return MISSING
    if value >= 0.995:
        return ratio(value)
    return f"{value:.2f}x" if value >= 0.1 else f"{measured(value)}x"


def times(value: float) -> str:
    """How many times as fast or slow, 1 or more: "1.04x", "1.9x", "12x"."""
    digits = 2 if value < 1.095 else 1 if value < 9.95 else 0
    return f"{value:.{digits}f}x"


def limit_value(column: str, limit: float) -> str:
    """A limit on what is measured, as a study writes it: "5 ms", "1,500.5 MB"."""
    return f"{limit:,.12g} {UNITS[column]}"


def measured(value: float | None, unit: str = "") -> str:
    """Milliseconds or megabytes in three digits: "2.31 ms", "0.0450 MB", "1,204 ms"."""
    if value is None:
        return MISSING
    rounded = float(f"{value:.2e}")
    digits = max(0, 2 - math.floor(math.log10(rounded))) if rounded > 0 else 0
    return f"{rounded if digits else value:,.{digits}f} {unit}".rstrip()


def epochs(count: float) -> str:
    """A number of epochs, whole unless a mean over seeds is not."""
    return f"{count:g}"


def num_seeds(count: int) -> str:
    """ "one seed", "3 seeds"."""
    return "one seed" if count == 1 else counted(count, "seed")


def seeds_of(comparison: Comparison, setting: Setting) -> str:
    """How many seeds stand behind the metric; "2 of 3" where one diverged."""
    mean, count = setting.mean(comparison.metric), len(setting.finals)
    measured = mean.num_seeds if mean else 0
    return str(count) if measured == count else f"{measured} of {count}"


def duration(seconds: float) -> str:
    """4000 is "1 h 7 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
