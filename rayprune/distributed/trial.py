"""A trial as Ray Tune sees it: it wants the stages of its plan, waits, and reports their epochs.

Kept free of torch: a trial takes no CPU, so its process should cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune

from rayprune.trials import TrialPlan


def run_trial(
    config: dict[str, Any], *, plans: Mapping[str, TrialPlan], ledger: Any, metric: str
) -> None:
    """Submit the plan of ``config["trial"]``; report each epoch after the dense run as it comes."""
    trial = plans[config["trial"]]
    ray.get(ledger.submit.remote(trial.name, trial.experiment, trial.plan))
    retrained = 0
    for stage in trial.plan:
        epochs_seen = 0
        while True:
            state = ray.get(ledger.wait_for.remote(stage.key, epochs_seen))
            if state.status == "failed":
                return  # the ledger knows why, and the summary says it
            is_over = state.status == "done" and stage is trial.plan[-1]
            is_news = state.epochs_done > epochs_seen and not stage.is_dense
            if (is_news or is_over) and metric in state.metrics:
                epochs = retrained + (0 if stage.is_dense else state.epochs_done)
                tune.report({**state.metrics, "retrain_epochs": epochs, "stage": stage.index})
            epochs_seen = max(epochs_seen, state.epochs_done)
            if state.status == "done":
                break
        retrained += 0 if stage.is_dense else stage.epochs


class Withdraw(tune.Callback):
    """A trial that Tune ends, for whatever reason, wants nothing any more."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ledger.withdraw.remote(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ledger.withdraw.remote(trial.config["trial"])
