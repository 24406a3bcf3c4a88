"""A trial as Ray Tune sees it: it wants the stages of its plan, waits, and reports their epochs.

Kept free of torch: a trial takes no CPU, so its process should cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune

from rayprune.trials import TrialPlan

RETRAIN_EPOCHS = "retrain_epochs"  # reported with each result: what early stopping counts


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
                tune.report({**state.metrics, RETRAIN_EPOCHS: epochs, "cycle": stage.cycle})
            epochs_seen = max(epochs_seen, state.epochs_done)
            if state.status == "done":
                break
        retrained += 0 if stage.is_dense else stage.epochs


class Withdraw(tune.Callback):
    """A trial that Tune ends, for whatever reason, wants nothing any more."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        epochs = (trial.last_result or {}).get(RETRAIN_EPOCHS, 0)
        reason = f"early stopping gave it up after {epochs} epochs of retraining"
        self._withdraw(trial, "stopped", reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._withdraw(trial, "unfinished", "its Ray Tune process died; start the study again")

    def _withdraw(self, trial: Any, status: str, reason: str) -> None:
        self._ledger.withdraw.remote(trial.config["trial"], status, reason)
