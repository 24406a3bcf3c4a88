"""What fine-tuning at the dense run's last rate would have come to, beside the chosen setting."""

from __future__ import annotations

from collections.abc import Sequence

from rayprune.report.differences import MOST_DIGITS
from rayprune.report.numbers import amount, num_seeds
from rayprune.results.comparison import Comparison
from rayprune.results.labels import is_case, metric_name
from rayprune.results.paired import Difference
from rayprune.results.setting import Setting

FT = "ft"
# A schedule's own fields: FT has none of them, and is compared all the same.
OF_A_SCHEDULE = {"retrain.schedule", "retrain.lr", "retrain.warmup", "allr.adapt"}
SUBJECT = "fine-tuning at the last rate"


def fine_tuning(comparison: Comparison, chosen: Setting) -> str:
    """A part of the answer: the loss of fine-tuning at equal sparsity and epochs; empty without it.

    With one seed, or where no interval to it is allowed, it is this study's measured difference and
    no more. An interval stands only where one of the two is the reference of their sparsity.
    """
    twin = fine_tuned(comparison, chosen)
    if twin is None:
        return ""
    found, sign = _difference(comparison, chosen, twin)
    if found is not None and found.interval is not None:
        seeds = num_seeds(found.num_pairs)
        name = metric_name(comparison.compared_by)
        if not found.is_told_apart:
            return f"{SUBJECT} cannot be told apart from it (by {name}, paired, {seeds})"
        low, high = sorted(abs(end) for end in found.interval)
        # What does not hold 0 does not look as if it did.
        digits = next((n for n in range(2, MOST_DIGITS) if 100 * low >= 10**-n), MOST_DIGITS)
        more = _more(comparison, sign * comparison.quality(found.mean), digits)
        ends = " to ".join(amount(comparison, end, digits) for end in (low, high))
        return f"{SUBJECT} {more} (by {name}, 95 % interval {ends}, paired, {seeds})"
    pairs = _pairs(comparison, chosen, twin)
    if not pairs:
        return ""
    lost = comparison.quality(sum(one - other for one, other in pairs) / len(pairs))
    seeds = num_seeds(len(pairs))
    return (
        f"{SUBJECT} {_more(comparison, lost)} ({seeds if len(pairs) == 1 else f'mean of {seeds}'})"
    )


def fine_tuned(comparison: Comparison, chosen: Setting) -> Setting | None:
    """The setting that differs from this one in its schedule, which is FT; None if there is none.

    Of several, as where named cases hold more than the schedule, the best by the metric.
    """
    if _schedule(chosen) in (FT, "none") or "retrain.schedule" in comparison.summary.tuned:
        return None
    # A finished trial's cycles and epochs are compared as they came out, and so is its goal.
    said = {"seed", "retrain.epochs", *OF_A_SCHEDULE, *comparison.summary.tuned}
    fields = [f for f in comparison.summary.searched if f not in said and not is_case(f)]
    last, twins = chosen.finals[0], comparison.equals_of(chosen)
    same = ("method", "cycle", *fields)
    equal = [
        twin
        for twin in twins
        if _schedule(twin) == FT
        and twin.epochs == chosen.epochs
        and all(twin.finals[0].get(name) == last.get(name) for name in same)
    ]
    return equal[0] if equal else None


def _schedule(setting: Setting) -> str:
    return str(setting.finals[0].get("schedule") or "none")


def _difference(
    comparison: Comparison, chosen: Setting, twin: Setting
) -> tuple[Difference | None, int]:
    """Their difference where one is the other's reference; the sign makes it chosen minus twin."""
    reference = comparison.reference(comparison.level(chosen))
    if reference is chosen:
        return comparison.difference(twin), -1
    if reference is twin:
        return comparison.difference(chosen), 1
    return None, 1


def _pairs(comparison: Comparison, chosen: Setting, twin: Setting) -> Sequence[tuple[float, float]]:
    """The metric of both for each seed that both have."""
    other = {row.get("seed", 0): row.get(comparison.metric) for row in twin.finals}
    both = [(row[comparison.metric], other.get(row.get("seed", 0))) for row in chosen.finals]
    return [(one, two) for one, two in both if one is not None and two is not None]


def _more(comparison: Comparison, lost: float, digits: int | None = None) -> str:
    """ "would have lost 2.2 points more"; what is no loss is said as it is."""
    shown = amount(comparison, abs(lost), digits)
    if float(shown) == 0:
        return "would have lost as much"
    unit = (" point" if float(shown) == 1 else " points") if comparison.is_fraction else ""
    return f"would have lost {shown}{unit} {'more' if lost > 0 else 'less'}"
