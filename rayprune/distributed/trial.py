"""A trial as Ray Tune sees it: it wants the stages of its plan, waits, and reports their epochs.

Kept free of torch: a trial takes no CPU, so its process should cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import tune

from rayprune.plan import Stage
from rayprune.results.outcome import TrialStatus
from rayprune.trials import TrialPlan

RETRAIN_EPOCHS = "retrain_epochs"  # reported with each result: what early stopping counts


def run_trial(
    config: dict[str, Any],
    *,
    ledger: Any,
    metric: str,
    replays: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """Submit the plan of ``config["trial"]``; report each epoch after the dense run as it comes.

    What an earlier start ran is reported again, so that early stopping compares with it;
    `replays` has what trials reported that were stopped then.
    """
    name = config["trial"]
    if name in replays:
        for result in replays[name]:
            tune.report(dict(result))
        return
    plan = _submit(name, ledger)
    retrained = 0
    for stage in plan:
        heard = 0
        while True:
            news = ray.get(ledger.wait_for.remote(stage.key, heard))
            if news is None:  # the ledger was started again
                _submit(name, ledger)
                continue
            if news.progress.status == "failed":
                return  # the ledger knows why, and the summary says it
            for metrics in news.history:
                heard += 1
                if not stage.is_dense:
                    _report(metrics, retrained + heard, metric)
            if news.progress.status == "done":
                break
        retrained += 0 if stage.is_dense else stage.epochs
    _report(news.progress.metrics, retrained, metric)


def _submit(name: str, ledger: Any) -> Sequence[Stage]:
    while True:
        plan = ray.get(ledger.submit.remote(name))
        if plan is not None:
            return plan


def _report(metrics: Mapping[str, float], retrain_epochs: int, metric: str) -> None:
    if metric in metrics:
        tune.report({**metrics, RETRAIN_EPOCHS: retrain_epochs})


class Withdraw(tune.Callback):
    """A trial that Tune ends, for whatever reason, wants nothing any more."""

    def __init__(
        self,
        ledger: Any,
        trials: Sequence[TrialPlan],
        metric: str,
        give_up: Callable[[TrialStatus], None],
    ) -> None:
        self._ledger, self._metric, self._give_up = ledger, metric, give_up
        self._keys = {trial.name: trial.key for trial in trials}
        self._reported: dict[str, dict[int, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What Tune writes down, for a restore that nothing here uses."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        reported = self._reported.setdefault(trial.config["trial"], {})
        reported[result[RETRAIN_EPOCHS]] = result[self._metric]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        epochs = (trial.last_result or {}).get(RETRAIN_EPOCHS, 0)
        reason = f"early stopping gave it up after {epochs} epochs of retraining"
        self._withdraw(trial, "stopped", reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        reason = "its Ray Tune process died again and again; start the study again"
        self._withdraw(trial, "unfinished", reason)

    def _withdraw(self, trial: Any, status: Any, reason: str) -> None:
        name = trial.config["trial"]
        self._ledger.withdraw.remote(name)
        self._give_up(
            TrialStatus(
                name=name,
                status=status,
                reason=reason,
                key=self._keys[name],
                reported=tuple(self._reported.pop(name, {}).items()),
            )
        )
