"""What ends in Ray Tune ends in the ledger: nobody runs what no trial wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune

from rayprune.config import Search
from rayprune.distributed.trial import CYCLES_DONE, FAILED, ITERATION, RETRAIN_EPOCHS
from rayprune.results.outcome import Status, TrialStatus


class Withdraw(tune.Callback):
    """A trial that Tune ends or pauses, for whatever reason, wants nothing any more."""

    def __init__(self, ledger: Any, search: Search, give_up: Callable[[TrialStatus], None]) -> None:
        self._ledger, self._search, self._give_up = ledger, search, give_up
        self._reported: dict[str, dict[int, dict[str, float]]] = {}
        self._heard: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        """What Tune writes down, for a restore that nothing here uses."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._heard.append(trial)
        if FAILED in result:
            trial.handle_error(RuntimeError(result[FAILED]))  # so ResultGrid.errors has it
        elif result[RETRAIN_EPOCHS]:
            fields = (ITERATION, RETRAIN_EPOCHS, CYCLES_DONE, *self._search.metrics, "goal")
            told = {name: result[name] for name in fields if name in result}
            self._reported.setdefault(trial.config["trial"], {})[result[ITERATION]] = told

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """HyperBand pauses trials: what they want is wanted again when they go on."""
        for trial in self._heard:
            if trial.status == "PAUSED":
                self._ledger.withdraw.remote(trial.config["trial"])
        self._heard.clear()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        if FAILED in last:  # a stage that failed says so too; that a goal is lacking, a trial alone
            self._withdraw(trial, "failed", last[FAILED])
            return
        scheduler = self._search.scheduler
        who = "a stopper" if scheduler is None else scheduler.name
        epochs = last.get(RETRAIN_EPOCHS, 0)
        self._withdraw(trial, "stopped", f"{who} stopped it after {epochs} epochs of retraining")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        reason = "its Ray Tune process died again and again; start the study again"
        self._withdraw(trial, "unfinished", reason)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """ResultGrid counts what failed by its status; its process, which ended well, is reused."""
        for trial in trials:
            if FAILED in (trial.last_result or {}):
                trial.set_status("ERROR")

    def _withdraw(self, trial: Any, status: Status, reason: str) -> None:
        """A trial that finished or failed did so: that counts, and not what is said here."""
        name = trial.config["trial"]
        reported = tuple(self._reported.pop(name, {}).values())
        self._ledger.withdraw.remote(name)
        self._give_up(TrialStatus(name=name, status=status, reason=reason, reported=reported))
