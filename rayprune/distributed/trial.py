"""A trial as Ray Tune sees it: it wants the stages of its plan, waits, and reports their epochs.

Kept free of torch: a trial takes no CPU, so its process should cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune

from rayprune.config.goals import Goals
from rayprune.plan import Stage
from rayprune.results.goal import goal_of
from rayprune.trials import TrialPlan

ITERATION = "training_iteration"  # Tune's name of the step, here the epochs of the whole plan
RETRAIN_EPOCHS, CYCLES_DONE = "retrain_epochs", "cycles_done"  # what schedulers count
GOAL = "goal"  # what `search.within_dense` searches for
IS_FINAL = "is_final"  # of a result: the trial has run its whole plan, and was not stopped
FAILED = "failed"  # the only field of a result that says why there will be no other


def run_trial(
    config: dict[str, Any],
    *,
    ledger: Any,
    goals: Goals,
    replays: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """Submit the plan of ``config["trial"]``; report each epoch as it comes.

    What an earlier start ran is reported again, so that searchers and schedulers learn from it;
    `replays` has what trials reported that were stopped then.
    """
    name = config["trial"]
    if name in replays:
        for result in replays[name]:
            tune.report({**result, IS_FINAL: False})
        return
    trial = _submit(name, ledger)
    reports = _Reports(goals)
    if trial.mistake:
        tune.report({FAILED: trial.mistake})
    for stage in trial.plan:
        heard = 0
        while True:
            news = ray.get(ledger.wait_for.remote(stage.key, heard))
            if news is None:  # the ledger was started again
                _submit(name, ledger)
                continue
            if news.progress.status == "failed":
                tune.report({FAILED: news.progress.error})
                return
            for metrics in news.history:
                heard += 1
                if heard < stage.epochs:  # the last one has more to say once the stage is done
                    tune.report(reports.epoch(stage, heard, metrics))
            if news.progress.status == "done":
                break
        is_final = stage is trial.plan[-1]
        tune.report({**reports.end(stage, news.progress.metrics), IS_FINAL: is_final})
        reports = reports.after(stage, news.progress.metrics)


def _submit(name: str, ledger: Any) -> TrialPlan:
    while True:
        trial = ray.get(ledger.submit.remote(name))
        if trial is not None:
            return trial


@dataclass(frozen=True)
class _Reports:
    """What a trial tells Tune, by what lies behind it."""

    goals: Goals
    steps: int = 0
    epochs: int = 0
    retrain_epochs: int = 0
    dense_value: float | None = None
    """The first metric at the end of the dense run."""

    def epoch(self, stage: Stage, done: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """After an epoch of a stage; `done` of them lie behind it."""
        place = {
            ITERATION: self.steps + max(1, done),
            "phase": "dense" if stage.is_dense else "retrain",
            "cycle": stage.cycle,
            RETRAIN_EPOCHS: self.retrain_epochs + (0 if stage.is_dense else done),
            CYCLES_DONE: max(0, stage.cycle - 1),
            IS_FINAL: False,
        }
        goal = self._goal(stage, metrics)
        return {**metrics, **place, **({} if goal is None else {GOAL: goal})}

    def end(self, stage: Stage, metrics: Mapping[str, float]) -> dict[str, Any]:
        """After the last epoch: with all that is known of the stage's result."""
        result = self.epoch(stage, stage.epochs, metrics)
        return {**result, CYCLES_DONE: stage.cycle, "total_epochs": self.epochs + stage.epochs}

    def after(self, stage: Stage, metrics: Mapping[str, float]) -> _Reports:
        """For the stage that follows."""
        value = metrics.get(self.goals.metrics[0])
        return replace(
            self,
            steps=self.steps + max(1, stage.epochs),
            epochs=self.epochs + stage.epochs,
            retrain_epochs=self.retrain_epochs + (0 if stage.is_dense else stage.epochs),
            dense_value=value if stage.is_dense else self.dense_value,
        )

    def _goal(self, stage: Stage, metrics: Mapping[str, float]) -> float | None:
        within, value = self.goals.within_dense, metrics.get(self.goals.metrics[0])
        sparsity = metrics.get("sparsity", stage.sparsity)
        if within is None or stage.is_dense or value is None or self.dense_value is None:
            return None
        change = value - self.dense_value
        gain = change if self.goals.modes[0] == "max" else -change
        return None if sparsity is None else goal_of(sparsity, gain, within)
