"""How the trials of a running study stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.trials import TrialPlan

NOT_YET = "not done when this was written; the same command goes on from here"


class Statuses:
    """The status of every trial; an update looks only at trials that what changed can have ended.

    A dense run that all trials share is looked at epoch by epoch, and they only if it fails.
    """

    def __init__(self, trials: Sequence[TrialPlan]) -> None:
        self._trials: list[TrialPlan] = []
        self._numbers: dict[str, int] = {}
        self._with: dict[str, list[int]] = defaultdict(list)
        self._ending_in: dict[str, list[int]] = defaultdict(list)
        self._over: dict[str, StageProgress] = {}  # stages that are done or failed
        self._given_up: dict[str, TrialStatus] = {}
        self._last_given_up: Mapping[str, TrialStatus] = {}
        self._statuses: list[TrialStatus] = []
        self.add(trials)

    def add(self, trials: Sequence[TrialPlan]) -> Sequence[TrialPlan]:
        """Take in what follows on the trials that are known; return it."""
        new = trials[len(self._trials) :]
        for trial in new:
            number = self._numbers[trial.name] = len(self._trials)
            self._trials.append(trial)
            self._ending_in[trial.key].append(number)
            for stage in trial.plan:
                self._with[stage.key].append(number)
            self._statuses.append(self._status(trial))
        return new

    @property
    def all(self) -> tuple[TrialStatus, ...]:
        """In the order of the trials."""
        return tuple(self._statuses)

    def of(self, trial: TrialPlan) -> TrialStatus:
        """How one trial stands."""
        return self._statuses[self._numbers[trial.name]]

    def is_over(self, trial: TrialPlan) -> bool:
        """Whether this start of the study will not bring it any further."""
        return self.of(trial).status != "unfinished" or trial.name in self._given_up

    def done(self, trial: TrialPlan) -> list[str]:
        """Keys of its stages that are done, in the order of its plan."""
        return [s.key for s in trial.plan if s.key in self._over and not self._has_failed(s.key)]

    def update(self, progress: StudyProgress) -> list[TrialPlan]:
        """Take in what is new; return the trials that stand differently now, in their order."""
        touched: set[int] = set()
        for key in progress.news:
            touched.update(self._touched_by(key, progress.stages[key]))
        given_up = self._new_given_up(progress.given_up)
        touched.update(self._numbers[name] for name in given_up if name in self._numbers)
        changed = []
        for number in sorted(touched):
            status = self._status(self._trials[number])
            if status != self._statuses[number]:
                self._statuses[number] = status
                changed.append(self._trials[number])
        return changed

    def _touched_by(self, key: str, state: StageProgress) -> Sequence[int]:
        """Numbers of the trials that a stage's new state can have ended, or begun again."""
        was_over, had_failed = key in self._over, self._has_failed(key)
        if state.status in ("done", "failed"):
            self._over[key] = state
        else:
            self._over.pop(key, None)
        if had_failed or state.status == "failed":
            return self._with.get(key, ())
        return self._ending_in.get(key, ()) if was_over or state.status == "done" else ()

    def _new_given_up(self, given_up: Mapping[str, TrialStatus]) -> list[str]:
        """Names of the trials that were given up since the last time."""
        if given_up is self._last_given_up:
            return []
        self._last_given_up = given_up
        new = [name for name, status in given_up.items() if self._given_up.get(name) != status]
        self._given_up.update({name: given_up[name] for name in new})
        return new

    def _has_failed(self, key: str) -> bool:
        return key in self._over and self._over[key].status == "failed"

    def _status(self, trial: TrialPlan) -> TrialStatus:
        return replace(self._end(trial), phase=trial.phase)

    def _end(self, trial: TrialPlan) -> TrialStatus:
        name, last = trial.name, trial.key
        if trial.mistake:
            return TrialStatus(name=name, status="infeasible", reason=trial.mistake)
        if last in self._over and not self._has_failed(last):
            return TrialStatus(name=name, status="finished", key=last)
        failed = next((s.key for s in trial.plan if self._has_failed(s.key)), None)
        if failed is not None:
            reason = self._over[failed].error or ""
            return TrialStatus(name=name, status="failed", reason=reason, key=last)
        if name in self._given_up:
            return replace(self._given_up[name], key=last)
        return TrialStatus(name=name, status="unfinished", reason=NOT_YET, key=last)
