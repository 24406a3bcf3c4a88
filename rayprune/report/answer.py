"""The sentence that answers a study's question, and the one about its cost."""

from __future__ import annotations

from rayprune.report.numbers import (
    epochs,
    metric_value,
    num_seeds,
    percent,
    ratio,
    short_change,
)
from rayprune.results.comparison import Comparison
from rayprune.results.labels import counted, metric_name
from rayprune.results.outcome import Status
from rayprune.results.setting import Setting

TOLERATED_LOSS = 0.01  # "close to dense": one point of a metric in percent, 1 % of any other
WITHOUT_RESULT: dict[Status, str] = {
    "failed": "failed",
    "stopped": "stopped early",
    "unfinished": "unfinished",
}


def answer(comparison: Comparison) -> str:
    """One sentence: how sparse, with which retraining, at what loss against the dense run.

    It speaks of the sparsest setting within one point of dense, or of the closest one if none is.
    """
    counts = ", ".join(counts_without_result(comparison))
    if not comparison.trials("finished"):
        return f"No trial has finished{': ' + counts if counts else ''}."
    if not comparison.candidates():
        return f"No finished trial has a {metric_name(comparison.metric)}."
    chosen, is_close = recommended(comparison)
    parts = [
        _lead(comparison, chosen, is_close),
        _next_level(comparison, chosen),
        _rivals(comparison, chosen),
        _open(comparison),
    ]
    return "; ".join(part for part in parts if part) + "."


def recommended(comparison: Comparison) -> tuple[Setting, bool]:
    """The sparsest setting close to dense, best of its sparsity; else the best, and False."""
    for level in reversed(comparison.levels):
        best = comparison.candidates(level)[0]
        if best.change is not None and _is_close(comparison, best):
            return best, True
    best = comparison.candidates()[0]
    return best, best.change is None or _is_close(comparison, best)


def counts_without_result(comparison: Comparison) -> list[str]:
    """How many trials ended otherwise than finished: "2 failed", "1 stopped early"."""
    counts = {words: len(comparison.trials(status)) for status, words in WITHOUT_RESULT.items()}
    return [f"{count} {words}" for words, count in counts.items() if count]


def epochs_sentence(comparison: Comparison) -> str:
    """What was trained, and what sharing equal stages saved."""
    run = f"{counted(comparison.summary.executed_epochs, 'epoch')} run"
    others, saved = epochs_not_run(comparison), epochs_saved(comparison)
    return "; ".join(filter(None, [", ".join(filter(None, [run, others])), saved]))


def epochs_not_run(comparison: Comparison) -> str:
    """Why this start of the study ran no more epochs; empty if every stage is of one trial."""
    summary = comparison.summary
    executed, unique = summary.executed_epochs, summary.unique_epochs
    if unique > executed and len(comparison.trials("finished")) < len(comparison.statuses):
        return f"the other {unique - executed} were found from before or have not run"
    if unique > executed == 0:
        return f"nothing was left to do: all {unique} were found from before"
    if unique > executed:
        return f"{unique - executed} found from before"
    is_shared = summary.naive_epochs > unique
    return f"each of {unique} unique ones once" if is_shared else ""


def epochs_saved(comparison: Comparison) -> str:
    """What separate runs would have cost; empty if as much, or if not every trial had its time."""
    unique, naive = comparison.summary.unique_epochs, comparison.summary.naive_epochs
    if naive <= unique or comparison.trials("stopped") or comparison.trials("unfinished"):
        return ""
    return f"separate runs would have cost {naive} ({ratio(naive / max(unique, 1))})"


def _lead(comparison: Comparison, chosen: Setting, is_close: bool) -> str:
    said = f"{chosen.label} {_keeps(comparison, chosen)}"
    if speedup := chosen.mean("theoretical_speedup"):
        said += f", {ratio(speedup.value)} fewer multiply-adds in theory"
    if is_close:
        return said
    tolerated = "one point" if comparison.is_fraction else percent(TOLERATED_LOSS)
    return f"No setting stays within {tolerated} of its dense run; the closest: {said}"


def _keeps(comparison: Comparison, setting: Setting) -> str:
    sparsity, metric = percent(setting.sparsity), metric_name(comparison.metric)
    seeds = num_seeds(len(setting.finals))
    if setting.change is None or setting.dense is None:
        value = metric_value(comparison, setting.mean(comparison.metric))
        compared = f"({seeds}, no dense run to compare with)"
        return f"reaches {value} {metric} at {sparsity} sparsity {compared}"
    dense = setting.dense.value
    shown = f"{100 * dense:.1f} %" if comparison.is_fraction else metric_value(comparison, dense)
    unit = "points of " if comparison.is_fraction else ""
    change = short_change(comparison, setting.change)
    return f"keeps {sparsity} sparsity at {change} {unit}{metric} (dense {shown}, {seeds})"


def _is_close(comparison: Comparison, setting: Setting) -> bool:
    assert setting.change is not None
    assert setting.dense is not None
    scale = 1.0 if comparison.is_fraction else abs(setting.dense.value)
    # Half a tenth more, so that what reads as one point is one point.
    return comparison.quality(setting.change.value) >= -1.05 * TOLERATED_LOSS * scale


def _next_level(comparison: Comparison, chosen: Setting) -> str:
    """What the next sparsity would cost."""
    sparser = [level for level in comparison.levels if 1 - level < 0.9 * (1 - chosen.sparsity)]
    best = comparison.candidates(sparser[0])[0] if sparser else None
    if best is None or best.change is None:
        return ""
    return f"{percent(best.sparsity)} would be at {short_change(comparison, best.change)}"


def _rivals(comparison: Comparison, chosen: Setting) -> str:
    """Settings of the same goal that the seeds' spread does not tell from the chosen one."""
    alike = comparison.alike(chosen)
    if not alike:
        return ""
    cheapest = min(alike, key=lambda s: s.epochs)
    if cheapest.epochs < chosen.epochs:
        cost = f"{epochs(cheapest.epochs)} epochs in all instead of {epochs(chosen.epochs)}"
        return f"{cheapest.label} is as good within the seeds' spread, for {cost}"
    others = f" and {len(alike) - 1} more are" if len(alike) > 1 else " is"
    return f"{alike[0].label}{others} as good within the seeds' spread"


def _open(comparison: Comparison) -> str:
    """What may still change the answer."""
    count = len(comparison.trials("unfinished"))
    return f"{counted(count, 'trial')} unfinished" if count else ""
