"""Which of a setting's tries is best, by validation on the seeds of tuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayprune.config import Study
from rayprune.config.goals import goals_of
from rayprune.plan import sparsify_goal
from rayprune.results.record import StageRecord
from rayprune.results.setting import is_as_sparse
from rayprune.trials import TrialPlan


@dataclass(frozen=True)
class _Try:
    trial: TrialPlan
    """Of the first seed."""
    value: float
    """The study's metric, turned so that more is better: the mean over the seeds."""
    sparsity: float


def choose(
    study: Study, tries: Sequence[TrialPlan], last: Mapping[str, StageRecord]
) -> TrialPlan | None:
    """The best try of one setting: a trial with its values. None if no try has a value.

    `last` has the record of the last stage of each trial that finished, by the trial's name. A try
    counts with a value on every seed, as the mean. Those that keep the goal sparsity come before
    those that do not, of which the sparsest wins: some methods find their own. Equal ones go to the
    first.
    """
    seeds: dict[str, list[TrialPlan]] = {}
    for trial in tries:
        values = {name: value for name, value in trial.values.items() if name != "seed"}
        seeds.setdefault(repr(values), []).append(trial)
    found = [t for trials in seeds.values() if (t := _measured(study, trials, last)) is not None]
    if not found:
        return None
    kept = [each for each in found if is_as_sparse(each.sparsity, _goal(each.trial))]
    if kept:
        return max(kept, key=lambda each: each.value).trial
    return max(found, key=lambda each: (each.sparsity, each.value)).trial


def _measured(
    study: Study, trials: Sequence[TrialPlan], last: Mapping[str, StageRecord]
) -> _Try | None:
    goals = goals_of(study)
    metric, mode = goals.metrics[0], goals.modes[0]
    records = [last[trial.name] for trial in trials if trial.name in last]
    values = [record.measured.get(metric) for record in records]
    known = [value for value in values if value is not None and value == value]
    if len(known) < len(trials):
        return None
    value = statistics.fmean(known)
    sparsity = statistics.fmean(record.sparsity for record in records)
    return _Try(trials[0], value if mode == "max" else -value, sparsity)


def _goal(trial: TrialPlan) -> float:
    """What it is to reach: a method that finds its own is asked for `prune.sparsity`."""
    experiment = trial.experiment
    if experiment.prune.cycles > 0:
        return experiment.prune.sparsity
    if experiment.dense.sparsify is None:
        return 0.0
    goal = sparsify_goal(experiment)
    return experiment.prune.sparsity if goal is None else goal
