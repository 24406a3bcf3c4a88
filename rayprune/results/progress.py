"""Progress of a running study: what the ledger knows, and what people are shown."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from rayprune.results.outcome import TrialStatus
from rayprune.trials import TrialPlan

StageStatus = Literal["wanted", "running", "done", "failed"]


@dataclass(frozen=True)
class StageProgress:
    """Progress of one stage."""

    status: StageStatus
    epochs_done: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of its last epoch: val_… and train_loss."""
    samples_per_second: float = 0.0
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True)
class StudyProgress:
    """Progress of a whole study, as it was when somebody asked."""

    stages: Mapping[str, StageProgress]
    """By key; a stage that is not in it is wanted. Of a running study it is one mapping that goes
    on changing: copy what is to stay."""
    given_up: Mapping[str, TrialStatus] = field(default_factory=dict)
    """Trials that ended before their plan was done, by name: stopped early, or lost."""
    executed_for: Mapping[str, str] = field(default_factory=dict)
    """Key -> the trial that a stage was run for, for every stage that this start has run."""
    executed_epochs: int = 0
    num_parallel: int = 1
    """Stages that can run at the same time."""
    changed: Collection[str] | None = None
    """Keys of the stages that differ from the progress before; None where that is not known."""
    notes: Sequence[str] = ()
    """What happened since the progress before that people should know, as that workers died."""
    trials: Sequence[TrialPlan] | None = None
    """All trials so far, where a searcher may have proposed more; None: all are known."""

    @property
    def news(self) -> Collection[str]:
        """Keys of the stages to look at: the changed ones, or all."""
        return self.stages if self.changed is None else self.changed


@dataclass(frozen=True)
class Changes:
    """What became different in a ledger since somebody asked last."""

    ledger: str
    """Which start of the ledger says so: it may be restarted, and then begins anew."""
    version: int
    """Ask for what comes after it."""
    stages: Mapping[str, StageProgress]
    """Only those that changed."""
    executed_for: Mapping[str, str] = field(default_factory=dict)
    """Key -> trial, only those that changed."""
    executed_epochs: int = 0
    """Since this start of the ledger."""
    notes: Sequence[str] = ()
    """What happened that people should know, as that workers died; only what is new."""


class ProgressLog:
    """A study's progress, kept from a ledger's changes; for several threads.

    Starts from what was done and stopped before. What a call costs depends on what changed, not on
    how many stages there are.
    """

    def __init__(
        self,
        found: Mapping[str, StageProgress],
        stopped: Mapping[str, TrialStatus] = MappingProxyType({}),
    ) -> None:
        self._lock = threading.Lock()
        self._stages, self._executed_for = dict(found), dict[str, str]()
        self._given_up = dict(stopped)  # never changed in place: progress was handed out with it
        self._asked: dict[str, TrialStatus] = {}
        self._new: dict[str, TrialStatus] = {}
        self._running: set[str] = set()
        self._ledger: str | None = None
        self._version = 0
        self._epochs_before = self._epochs = 0

    @property
    def progress(self) -> StudyProgress:
        """All that is known."""
        with self._lock:
            now = self._progress(None)
            return replace(now, given_up={**self._given_up, **self._asked, **self._new})

    @property
    def last(self) -> tuple[str | None, int]:
        """Ledger and version of the changes that were taken in last: ask for what comes after."""
        with self._lock:
            return self._ledger, self._version

    def take(self, changes: Changes) -> StudyProgress:
        """Take in changes of the ledger; return the progress, which says what is new in it."""
        with self._lock:
            changed = {} if changes.ledger == self._ledger else self._begin_anew(changes.ledger)
            changed.update(changes.stages)
            self._stages.update(changed)
            for key, state in changed.items():
                (self._running.add if state.status == "running" else self._running.discard)(key)
            self._executed_for.update(changes.executed_for)
            self._epochs, self._version = changes.executed_epochs, changes.version
            if self._asked:
                self._given_up = {**self._given_up, **self._asked}
            self._asked, self._new = self._new, {}
            return replace(self._progress(changed.keys()), notes=changes.notes)

    def give_up(self, trial: TrialStatus) -> None:
        """A trial ended before its plan was done, or so it seems to who scheduled it.

        Changes that were asked for earlier may not say yet that it finished or failed, which counts
        more: so the second `take` from here is the first to show it.
        """
        with self._lock:
            self._new[trial.name] = trial

    def _begin_anew(self, ledger: str) -> dict[str, StageProgress]:
        """Another start of the ledger: what ran is wanted again. Return what that changes."""
        self._ledger = ledger
        self._epochs_before, self._epochs = self._epochs_before + self._epochs, 0
        return {key: replace(self._stages[key], status="wanted") for key in self._running}

    def _progress(self, changed: Collection[str] | None) -> StudyProgress:
        return StudyProgress(
            stages=MappingProxyType(self._stages),
            given_up=self._given_up,
            executed_for=MappingProxyType(self._executed_for),
            executed_epochs=self._epochs_before + self._epochs,
            changed=changed,
        )
