"""Results in plain English: numbers as people read them, the sentence that answers, the table."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rayprune.results.comparison import Mean, Results, Setting

TOLERATED_LOSS = 0.01  # "close to dense": one point of a metric in percent, 1 % of any other

MOST_LEVELS = 8


def answer(table: pa.Table) -> str:
    """One sentence: how sparse, with which retraining, at what loss against the dense run.

    It speaks of the sparsest setting within one point of dense, or of the closest one if none is.
    Raises ``ValueError`` if the table is not a results table.
    """
    return answer_of(Results.from_table(table))


def answer_of(results: Results) -> str:
    """`answer` for results that have been read."""
    if not results.candidates():
        ends = {"failed": len(results.errors), "stopped early": len(results.stopped)}
        said = ", ".join(f"{count} {end}" for end, count in ends.items() if count)
        return f"No trial has finished{': ' + said if said else ''}."
    chosen, is_close = recommended(results)
    speedup = chosen.mean("theoretical_speedup")
    parts = [
        f"{chosen.label} {_keeps(results, chosen)}",
        f"{speedup.value:.1f}x fewer multiply-adds in theory" if speedup else "",
    ]
    said = ", ".join(part for part in parts if part)
    if not is_close:
        said = (
            f"No setting stays within {_tolerated(results)} of its dense run; the closest: {said}"
        )
    tails = [said, _next_level(results, chosen), _rivals(results, chosen)]
    return "; ".join(tail for tail in tails if tail) + "."


def recommended(results: Results) -> tuple[Setting, bool]:
    """The sparsest setting close to dense, best of its sparsity; else the best, and False."""
    for level in reversed(results.levels):
        best = results.candidates(level)[0]
        if best.change is not None and _is_close(results, best):
            return best, True
    best = results.candidates()[0]
    return best, best.change is None or _is_close(results, best)


def summary_table(table: pa.Table) -> list[dict[str, str]]:
    """A row for each setting, best first: column heading -> text, metrics in percent.

    Raises ``ValueError`` if the table is not a results table.
    """
    results = Results.from_table(table)
    return [summary_row(results, setting) for setting in results.settings]


def summary_row(results: Results, setting: Setting) -> dict[str, str]:
    """One setting as text."""
    metric, test = results.metric, metric_on_test(results)
    unit = " %" if results.is_fraction else ""
    speedup = setting.mean("theoretical_speedup")
    return {
        "setting": setting.label + (" (goal missed)" if setting.missed_goal else ""),
        "sparsity": percent(setting.sparsity),
        "epochs": f"{setting.epochs:g}",
        f"{metric.replace('_', ' ')}{unit}": show(results, setting.mean(metric), unit=""),
        change_name(results): show_change(results, setting.change),
        f"{test.replace('_', ' ')}{unit}": show(results, setting.mean(test), unit=""),
        "speed-up in theory": f"{speedup.value:.1f}x" if speedup else "–",
        "seeds": seeds_of(results, setting),
    }


def metric_on_test(results: Results) -> str:
    """The metric's twin on the test split."""
    return results.metric.replace("val_", "test_", 1)


def metric_name(metric: str) -> str:
    """val_mean_iou is "validation mean IoU"."""
    words = metric.replace("pruned_val_", "val_").replace("val_", "validation_", 1)
    return words.replace("_", " ").replace("iou", "IoU")


def change_name(results: Results) -> str:
    """Heading of the differences to the dense run."""
    return "vs dense, points" if results.is_fraction else "vs dense"


def percent(fraction: float, digits: int = 2) -> str:
    """0.95 is "95 %": no zeros at the end, and never 100 % for a little less."""
    shown = f"{100 * fraction:.{digits}f}"
    if shown == f"{100:.{digits}f}" and fraction < 1:
        shown = f"{100 * fraction:.5f}"
    return f"{shown.rstrip('0').rstrip('.')} %"


def show(results: Results, mean: Mean | None, unit: str = " %") -> str:
    """A metric's mean and spread: "88.62 ± 0.14 %", a loss as "0.3412"."""
    if mean is None:
        return "–"
    if not results.is_fraction:
        return f"{mean.value:.4g}" + (f" ± {mean.spread:.2g}" if mean.spread is not None else "")
    spread = f" ± {100 * mean.spread:.2f}" if mean.spread is not None else ""
    return f"{100 * mean.value:.2f}{spread}{unit}"


def show_change(results: Results, change: Mean | None, digits: int = 2) -> str:
    """A difference of two metrics, in points where the metric is in percent: "-0.83 ± 0.12"."""
    if change is None:
        return "–"
    if not results.is_fraction:
        return f"{change.value:+.3g}" + (
            f" ± {change.spread:.2g}" if change.spread is not None else ""
        )
    shown = f"{100 * change.value:+.{digits}f}"
    shown = f"{0:.{digits}f}" if float(shown) == 0 else shown
    return shown + (f" ± {100 * change.spread:.{digits}f}" if change.spread is not None else "")


def epochs_of(results: Results) -> str:
    """What was trained, and what sharing equal stages saved."""
    executed, unique, naive = results.executed_epochs, results.unique_epochs, results.naive_epochs
    said = f"{counted(executed, 'epoch')} run"
    if (
        unique > executed and results.failed
    ):  # a trial that ends early leaves epochs that nobody runs
        said += f" of {unique}; the others were found from before, or their trials ended early"
    elif unique > executed:
        said += f", {unique - executed} found from before"
    elif unique == executed and naive > unique:
        said += f", each of {unique} unique ones once"
    if naive > unique and not results.stopped:
        said += f"; separate runs would have cost {naive} ({naive / max(unique, 1):.1f}x)"
    return said


def seeds_of(results: Results, setting: Setting) -> str:
    """How many seeds stand behind the metric; "2 of 3" where one diverged."""
    mean, count = setting.mean(results.metric), len(setting.finals)
    measured = mean.num_seeds if mean else 0
    return str(count) if measured == count else f"{measured} of {count}"


def num_seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def counted(count: int, noun: str) -> str:
    """ "1 trial", "12 trials"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _keeps(results: Results, setting: Setting) -> str:
    sparsity, metric = percent(setting.sparsity), metric_name(results.metric)
    seeds = num_seeds(len(setting.finals))
    if setting.change is None or setting.dense is None:
        value = show(results, setting.mean(results.metric))
        compared = f"({seeds}, no dense run to compare with)"
        return f"reaches {value} {metric} at {sparsity} sparsity {compared}"
    dense = setting.dense.value
    shown = f"{100 * dense:.1f} %" if results.is_fraction else f"{dense:.4g}"
    unit = "points of " if results.is_fraction else ""
    change = _short_change(results, setting.change)
    return f"keeps {sparsity} sparsity at {change} {unit}{metric} (dense {shown}, {seeds})"


def _short_change(results: Results, change: Mean) -> str:
    """One decimal, two where one would hide a small number."""
    small = [abs(x) for x in (change.value, change.spread) if x is not None]
    return show_change(results, change, digits=1 if min(small) >= 0.0005 else 2)


def _is_close(results: Results, setting: Setting) -> bool:
    assert setting.change is not None
    assert setting.dense is not None
    scale = 1.0 if results.is_fraction else abs(setting.dense.value)
    # Half a tenth more, so that what reads as one point is one point.
    return results.quality(setting.change.value) >= -1.05 * TOLERATED_LOSS * scale


def _tolerated(results: Results) -> str:
    return "one point" if results.is_fraction else percent(TOLERATED_LOSS)


def _next_level(results: Results, chosen: Setting) -> str:
    """What the next sparsity would cost."""
    sparser = [level for level in results.levels if 1 - level < 0.9 * (1 - chosen.sparsity)]
    best = results.candidates(sparser[0])[0] if sparser else None
    if best is None or best.change is None:
        return ""
    return f"{percent(best.sparsity)} would be at {_short_change(results, best.change)}"


def _rivals(results: Results, chosen: Setting) -> str:
    """Settings of the same goal that the seeds' spread does not tell from the chosen one."""
    alike = alike_settings(results, chosen)
    if not alike:
        return ""
    cheapest = min(alike, key=lambda s: s.epochs)
    if cheapest.epochs < chosen.epochs:
        cost = f"{cheapest.epochs:g} epochs in all instead of {chosen.epochs:g}"
        return f"{cheapest.label} is as good within the seeds' spread, for {cost}"
    others = f" and {len(alike) - 1} more are" if len(alike) > 1 else " is"
    return f"{alike[0].label}{others} as good within the seeds' spread"


def alike_settings(results: Results, best: Setting) -> list[Setting]:
    """Other settings with the same goal that are as good within the seeds' spread."""
    same = [s for s in results.settings if s is not best and s.goal == best.goal]
    return [s for s in same if not s.missed_goal and results.alike(best, s)]


def best_by_level(results: Results) -> Sequence[tuple[float, Setting]]:
    """For each goal sparsity the best setting that is at least that sparse.

    Of many goals, as a random search has them, only those at which the best setting changes.
    """
    best = [(level, results.candidates(level)[0]) for level in results.levels]
    if len(best) <= MOST_LEVELS:
        return best
    return list({id(setting): (level, setting) for level, setting in best}.values())
