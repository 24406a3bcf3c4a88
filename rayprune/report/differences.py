"""Differences to the reference in words: a cell, a heading, what they mean and what they do not."""

from __future__ import annotations

from collections.abc import Iterable

from rayprune.report.numbers import MISSING, num_seeds, percent, points
from rayprune.results.comparison import Comparison
from rayprune.results.labels import is_measured, metric_name, on_test, said
from rayprune.results.paired import Difference
from rayprune.results.setting import Setting

LONG_NAME = 20  # letters of a reference's name that are too many for a heading
MOST_DIGITS = 5  # of a point, to show that an interval does not hold 0


def reference_name(comparison: Comparison) -> str:
    """What settings are compared with: its name where it is one and short, else "reference"."""
    names = {setting.label for setting in comparison.references.values()}
    name = names.pop() if len(names) == 1 else "reference"
    return name if len(name) <= LONG_NAME else "reference"


def difference_name(comparison: Comparison) -> str:
    """What differences are called, with their unit."""
    unit = ", points" if comparison.is_fraction else ""
    return f"vs {reference_name(comparison)}{unit} (95 %)"


def difference_cell(comparison: Comparison, setting: Setting) -> str:
    """A setting's difference to its reference, or why it has none."""
    if setting.missed_goal:
        return "goal missed"
    if any(setting is reference for reference in comparison.references.values()):
        return "reference"
    return shown(comparison, comparison.difference(setting))


def shown(comparison: Comparison, difference: Difference | None) -> str:
    """ "-1.20 [-2.01, -0.39]": with its interval, in points where the metric is in percent."""
    if difference is None:
        return MISSING
    if difference.interval is None:
        why = "one seed" if difference.num_pairs == 1 else "the same for all seeds"
        return f"{_number(comparison, difference.mean, 2)} ({why})"
    low, high = difference.interval
    for digits in range(2, MOST_DIGITS + 1):
        ends = [_number(comparison, value, digits) for value in (low, high)]
        if not difference.is_told_apart or all(float(end) for end in ends):
            break  # what does not hold 0 does not look as if it did
    return f"{_number(comparison, difference.mean, digits)} [{ends[0]}, {ends[1]}]"


def seeds_paired(comparison: Comparison, settings: Iterable[Setting]) -> str:
    """How many seeds stand behind their intervals: "3 seeds", "2 to 3 seeds"."""
    differences = filter(None, map(comparison.difference, settings))
    counts = sorted({d.num_pairs for d in differences if d.interval})
    return num_seeds(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def difference_notes(comparison: Comparison) -> list[str]:
    """What a difference with its interval is, whom it is to, and where there is none."""
    if not comparison.has_intervals:
        return _levels_without(comparison)
    return [
        f"vs {reference_name(comparison)} is the mean over seeds of a setting's "
        f"{metric_name(comparison.compared_by)} minus the reference's with the same seed, and in "
        "brackets its 95 % interval: Student's t on these differences, with Holm's correction for "
        "all settings that are compared at a sparsity. Where it holds 0, the two cannot be told "
        "apart, which is no proof that they are equal: few seeds make wide intervals. "
        f"{_scope(comparison)}",
        _whom(comparison),
        *_levels_without(comparison),
    ]


def _scope(comparison: Comparison) -> str:
    over = f"The interval is over {seeds_paired(comparison, comparison.settings)} on this data set"
    if comparison.compared_by != comparison.metric:
        return f"{over} and its test split; it says nothing about other data."
    why = (
        f"no {metric_name(on_test(comparison.metric))} was measured"
        if is_measured(comparison.metric)
        else f"{metric_name(comparison.metric)} has no twin on the test split"
    )
    return (
        f"{over}; it says nothing about other data. It is of the metric that ranks the settings, "
        f"for {why}: what ranks first looks better than it is."
    )


def _whom(comparison: Comparison) -> str:
    ranked = f"by {metric_name(comparison.metric)}"
    wanted = comparison.summary.reference
    if wanted:
        named = ", ".join(said(wanted))
        return f"The reference is what the study names, {named}; of several the best {ranked}."
    return (
        f"The reference is, at each sparsity, the setting that is best {ranked}. The same runs "
        "chose it, and what luck they had shows on the test split too: of settings that are all "
        "alike, one is told apart from it in more than 5 of 100 studies (of 13, in 6 to 11). A "
        "reference that is named before (search.reference) has no such luck."
    )


def _levels_without(comparison: Comparison) -> list[str]:
    if not comparison.summary.reference or not comparison.has_seeds:
        return []
    without = [percent(x) for x in comparison.levels if x not in comparison.references]
    if not without:
        return []
    named = ", ".join(said(comparison.summary.reference))
    return [
        f"At {', '.join(without)} sparsity nothing is compared: no setting with {named} kept it."
    ]


def _number(comparison: Comparison, value: float, digits: int) -> str:
    return points(value, digits) if comparison.is_fraction else f"{value:+.3g}"
