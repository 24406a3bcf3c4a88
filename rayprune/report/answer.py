"""The sentence that answers a study's question, and the one about its cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rayprune.report.deployed import limits, measured_speedup, none_within, unmeasured
from rayprune.report.differences import seeds_paired
from rayprune.report.fine_tuning import fine_tuning
from rayprune.report.numbers import (
    change,
    dense_name,
    epochs,
    goal_value,
    metric_value,
    num_seeds,
    percent,
    ratio,
    short_change,
    tolerance,
)
from rayprune.results.comparison import Comparison, Verdict
from rayprune.results.labels import counted, metric_name, superlative
from rayprune.results.outcome import Status
from rayprune.results.setting import Mean, Setting

D1_ALONE = "ALLR goes by d1 alone: dense.trained_epochs is not given"
MOST_NAMES = 8  # of trials that ended alike
WITHOUT_RESULT: dict[Status, str] = {
    "failed": "failed",
    "infeasible": "infeasible",
    "stopped": "stopped early",
    "unfinished": "unfinished",
}

VERDICTS: dict[Verdict, str] = {
    "better": "is better than",
    "alike": "cannot be told apart from",
    "worse": "is worse than",
}
Verdicts = Mapping[Verdict, Sequence[Setting]]


def answer(comparison: Comparison) -> str:
    """One sentence: how sparse, with which retraining, at what loss against the dense run.

    It speaks of the sparsest setting within the loss that the study tolerates, one point unless it
    names another, or of the closest one if none is; of the best within the limits of a study that
    has them; and of the Pareto front, if there is one.
    """
    counts = ", ".join(counts_without_result(comparison))
    if not comparison.finals:
        what = "No trial but tries" if comparison.tries else "No trial"
        return f"{what} has finished{': ' + counts if counts else ''}."
    if not comparison.candidates():
        return f"No finished trial has a {metric_name(comparison.metric)}{_instead(comparison)}."
    chosen, is_close = recommended(comparison)
    parts = [
        _lead(comparison, chosen, is_close),
        fine_tuning(comparison, chosen),
        _next_level(comparison, chosen),
        _rivals(comparison, chosen),
        _front(comparison),
        _open(comparison),
    ]
    return "; ".join(part for part in parts if part) + "."


def _instead(comparison: Comparison) -> str:
    """What was measured, where the metric never was: the task has other ones."""
    if not comparison.measured or comparison.metric in comparison.measured:
        return ""
    return f"; measured were {', '.join(comparison.measured)}"


def recommended(comparison: Comparison) -> tuple[Setting, bool]:
    """The sparsest setting close to dense, best of its sparsity; else the best, and False.

    With limits on what is measured, and no loss that is tolerated, it is the best within these.
    """
    summary, sparsest = comparison.summary, comparison.sparsest_within
    is_best_asked = bool(summary.within) and summary.within_dense is None
    if sparsest is not None and not is_best_asked:
        return sparsest, True
    best = comparison.candidates()[0]
    return best, best.change is None or comparison.is_within(best)


def counts_without_result(comparison: Comparison) -> list[str]:
    """How many trials ended otherwise than finished: "2 failed", "1 stopped early"."""
    counts = {words: len(comparison.trials(status)) for status, words in WITHOUT_RESULT.items()}
    return [f"{count} {words}" for words, count in counts.items() if count]


def without_result(comparison: Comparison, status: Status) -> list[tuple[str, str]]:
    """Who ended so and why, a line for each reason: ("trial 3 failed", "out of memory")."""
    words = WITHOUT_RESULT[status]
    if status == "unfinished":  # all for one reason, and maybe thousands
        reasons = comparison.reasons(status).items()
        return [(f"{counted(count, 'trial')} {words}", reason) for reason, count in reasons]
    names: dict[str, list[str]] = defaultdict(list)
    for trial in comparison.trials(status):
        names[trial.reason].append(trial.name)
    return [(f"{_trials(those)} {words}", reason) for reason, those in names.items()]


def _trials(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"trial{'s' if len(names) > 1 else ''} {', '.join(names[:MOST_NAMES])}{more}"


def epochs_sentence(comparison: Comparison) -> str:
    """What was trained, and what sharing equal stages saved."""
    run = f"{counted(comparison.summary.executed_epochs, 'epoch')} run"
    others, saved = epochs_not_run(comparison), epochs_saved(comparison)
    parts = [", ".join(filter(None, [run, others])), saved, epochs_tuning(comparison)]
    return "; ".join(filter(None, parts))


def d1_alone(comparison: Comparison) -> str:
    """What ALLR had to do without, where a brought network's training is not known; else empty."""
    return D1_ALONE if comparison.has_d1_alone else ""


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


def epochs_tuning(comparison: Comparison) -> str:
    """What tries took; empty without any."""
    count = comparison.summary.tuning_epochs
    return f"tuning took {counted(count, 'epoch')}" if count else ""


def _lead(comparison: Comparison, chosen: Setting, is_close: bool) -> str:
    said, join = f"{chosen.label} {_keeps(comparison, chosen)}", ", "
    if speedup := chosen.mean("theoretical_speedup"):
        said += f", {ratio(speedup.value)} fewer multiply-adds in theory"
        join = ", and "
    if measured := measured_speedup(comparison, chosen):
        said += f"{join}{measured}"
    return f"{_asked(comparison, chosen, is_close)}{said}"


def _asked(comparison: Comparison, chosen: Setting, is_close: bool) -> str:
    """What the chosen setting is the answer to, and what no setting is; empty if that is plain."""
    tolerated, within = tolerance(comparison), limits(comparison)
    none = none_within(comparison)
    if none and (waiting := unmeasured(comparison)):
        none += f" ({waiting})"
    asks_for_sparsest = comparison.summary.within_dense is not None and chosen.change is not None
    if within and not asks_for_sparsest:
        return f"{none}; the best: " if none else f"The best within {within}: "
    if not is_close:
        known = "known to be " if comparison.is_unsure_of_limits else ""
        among = f" {known}within {within}" if within else ""
        none = f"{none}, and none" if none else f"No setting{among}"
        return f"{none} stays within {tolerated} of its {dense_name(comparison)}; the closest: "
    if not asks_for_sparsest:
        return ""
    sparsest = f"sparsest within {tolerated} of dense"
    if none:
        return f"{none}; the {sparsest}: "
    return f"The {sparsest}{f' and within {within}' if within else ''}: "


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
    lost = _change(comparison, setting.change)
    return f"keeps {sparsity} sparsity at {lost} {unit}{metric} (dense {shown}, {seeds})"


def _change(comparison: Comparison, mean: Mean) -> str:
    """With both decimals where a tolerance was named: it may be finer than one."""
    named = comparison.summary.within_dense is not None
    return change(comparison, mean) if named else short_change(comparison, mean)


def _next_level(comparison: Comparison, chosen: Setting) -> str:
    """What the next sparsity would cost."""
    sparser = [level for level in comparison.levels if 1 - level < 0.9 * (1 - chosen.sparsity)]
    best = comparison.candidates(sparser[0])[0] if sparser else None
    if best is None or best.change is None:
        return ""
    return f"{percent(best.sparsity)} would be at {_change(comparison, best.change)}"


def _rivals(comparison: Comparison, chosen: Setting) -> str:
    """What seeds say of the chosen setting and of the others, against the reference."""
    reference = comparison.reference(comparison.level(chosen))
    if reference is None:
        return ""
    verdicts: dict[Verdict, list[Setting]] = defaultdict(list)
    for setting in comparison.equals_of(reference):
        if verdict := comparison.verdict(comparison.difference(setting)):
            verdicts[verdict].append(setting)
    if reference is chosen:
        said = _of_reference(reference, verdicts)
    else:
        said = _against(reference, chosen, verdicts)
    if not said:
        return ""
    seeds = seeds_paired(comparison, comparison.equals_of(reference))
    return f"by {metric_name(comparison.compared_by)} {said} (paired, {seeds})"


def _of_reference(reference: Setting, verdicts: Verdicts) -> str:
    """The others' verdicts, turned: where one is worse, the reference is better."""
    alike = verdicts.get("alike", ())
    cheapest = min(alike, key=lambda s: s.epochs, default=reference)
    cost = ""
    if cheapest.epochs < reference.epochs:
        cost = f" ({epochs(cheapest.epochs)} epochs in all instead of {epochs(reference.epochs)})"
        alike = [cheapest, *(s for s in alike if s is not cheapest)]
    parts = [
        alike and f"cannot be told apart from {_named(alike, cost)}",
        (worse := verdicts.get("worse")) and f"is better than {_named(worse)}",
        (better := verdicts.get("better")) and f"is worse than {_named(better)}",
    ]
    said = " and ".join(part for part in parts if part)
    return f"{reference.label} {said}" if said else ""


def _against(reference: Setting, chosen: Setting, verdicts: Verdicts) -> str:
    """The chosen setting's verdict, and which others are better than the reference."""
    own = next((v for v, those in verdicts.items() if any(s is chosen for s in those)), None)
    better = [s for s in verdicts.get("better", ()) if s is not chosen]
    parts = [
        own and f"{chosen.label} {VERDICTS[own]} {reference.label}",
        better and f"{_named(better)} {'are' if len(better) > 1 else 'is'} better than it",
    ]
    return ", and ".join(part for part in parts if part) if own else ""


def _named(settings: Sequence[Setting], cost: str = "") -> str:
    more = f" and {len(settings) - 1} more" if len(settings) > 1 else ""
    return f"{settings[0].label}{cost}{more}"


def _front(comparison: Comparison) -> str:
    """How many settings no other one beats in all goals, and the two ends of these."""
    front, summary = comparison.front, comparison.summary
    if not front:
        return ""
    size = f"{len(front)} of {counted(len(comparison.sparse), 'setting')}"
    on_it = f"{size} {'is' if len(front) == 1 else 'are'} on the Pareto front"
    turned = 1 if summary.modes[1] == "max" else -1
    last = max(front, key=lambda s: turned * s.value(summary.metrics[1]))
    ends = [_end(comparison, front[0], 0), _end(comparison, last, 1)]
    return f"{on_it}, from {ends[0]} to {ends[1]}" if len(front) > 1 else f"{on_it}: {ends[0]}"


def _end(comparison: Comparison, setting: Setting, number: int) -> str:
    """A setting on the front with the goal that it is best in."""
    goal, mode = comparison.summary.metrics[number], comparison.summary.modes[number]
    value = goal_value(comparison, goal, setting.value(goal))
    name = f"{setting.label} at {percent(setting.sparsity)} sparsity"
    return f"{name} ({superlative(goal, mode)}, {value})"


def _open(comparison: Comparison) -> str:
    """What may still change the answer."""
    count, untuned = len(comparison.trials("unfinished")), comparison.summary.untuned
    parts = [
        f"no try of {', '.join(untuned)} ended with a result" if untuned else "",
        f"{counted(count, 'trial')} unfinished" if count else "",
        "" if none_within(comparison) else unmeasured(comparison),  # it is said with that
    ]
    return "; ".join(filter(None, parts))
