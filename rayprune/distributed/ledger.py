"""Which stage is done, running or wanted, and what a slot does next. Decides; knows no Ray.

Trials submit plans, slots ask for work. Stages with equal keys are one stage, whoever wants it.
All ranks of a slot ask with the same (slot, incarnation, number) and get the same answer, so no
collective is held open while a slot is idle. A slot that came back after a failure asks with a new
incarnation; what its old one was running is wanted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayprune.config import Experiment
from rayprune.plan import Stage
from rayprune.results.outcome import Status, TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress

MAX_ATTEMPTS = 4  # of one epoch, when its slots keep dying: then the stage is what kills them


@dataclass(frozen=True)
class Run:
    """Run this stage, from the snapshots of its inputs."""

    experiment: Experiment
    stage: Stage
    inputs: Mapping[str, Any]
    """Key of an input -> what `finished` was told for it; without those to be read from storage."""


@dataclass(frozen=True)
class Wait:
    """Nothing can be run now; ask again."""


@dataclass(frozen=True)
class Stop:
    """No work remains; the slot exits."""


Answer = Run | Wait | Stop


WANTED = StageProgress("wanted")


@dataclass
class _Entry:
    experiment: Experiment
    stage: Stage
    wanted_by: dict[str, None]  # in order of submission
    progress: StageProgress = WANTED
    snapshot: Any = None
    executed_for: str | None = None
    slot: int | None = None
    attempts: int = 0


@dataclass
class Ledger:
    """The one place that knows every stage of a study."""

    num_parallel: int = 1
    """Slots that the study was given."""
    executed_epochs: int = 0
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _plans: dict[str, Sequence[Stage]] = field(default_factory=dict)
    _given_up: dict[str, TrialStatus] = field(default_factory=dict)
    _incarnations: dict[int, int] = field(default_factory=dict)
    _answers: dict[tuple[int, int, int], Answer] = field(default_factory=dict)
    _last: dict[int, str] = field(default_factory=dict)
    """Slot -> key of the stage whose weights it holds."""
    _closed: bool = False

    # ---- trials ----

    def submit(self, trial: str, experiment: Experiment, plan: Sequence[Stage]) -> None:
        """A trial wants all stages of its plan."""
        self._plans[trial] = plan
        for stage in plan:
            entry = self._entries.get(stage.key)
            if entry is None:
                entry = self._entries[stage.key] = _Entry(experiment, stage, {})
            entry.wanted_by[trial] = None

    def knows(self, key: str) -> bool:
        """Whether a plan with this stage was submitted."""
        return key in self._entries

    def found(self, key: str, metrics: Mapping[str, float]) -> None:
        """A stage that an earlier study or an earlier start of this one has finished."""
        entry = self._entries[key]
        if entry.progress.status == "wanted":
            entry.progress = StageProgress("done", entry.stage.epochs, metrics)

    def withdraw(self, trial: str, status: Status, reason: str) -> None:
        """A trial wants nothing any more; what only it wanted is not started, or ends early.

        `status` and `reason` say why, for a trial whose plan was not done.
        """
        for entry in self._entries.values():
            entry.wanted_by.pop(trial, None)
        plan = self._plans.get(trial)
        if plan is None or self._entries[plan[-1].key].progress.status not in ("done", "failed"):
            self._given_up[trial] = TrialStatus(name=trial, status=status, reason=reason)

    def withdraw_all(self) -> None:
        """No trial waits any more: what still runs ends at its next epoch."""
        for entry in self._entries.values():
            entry.wanted_by.clear()

    def state(self, key: str) -> StageProgress:
        """Progress of one stage."""
        return self._entries[key].progress

    def has_work(self) -> bool:
        """Whether a slot may be needed: plans may still come, or stages are not done."""
        return not self._closed or self._has_work()

    def close(self) -> None:
        """No more plans will come: slots may stop when nothing is left to run."""
        self._closed = True

    # ---- slots ----

    def join(self, slot: int) -> int:
        """A slot starts, or starts again after a failure; return its incarnation."""
        self.slot_lost(slot)
        self._incarnations[slot] = self._incarnations.get(slot, -1) + 1
        return self._incarnations[slot]

    def next_stage(self, slot: int, incarnation: int, number: int) -> Answer:
        """The slot's `number`-th answer; every rank that asks for it hears the same."""
        if incarnation != self._incarnations.get(slot):
            return Stop()  # a rank of a group that is already gone
        question = (slot, incarnation, number)
        if question not in self._answers:
            answer = self._decide(slot)
            if isinstance(answer, Wait):
                return answer  # not an answer yet: ranks ask the same question again
            self._answers[question] = answer
        return self._answers[question]

    def epoch_done(
        self, slot: int, key: str, epochs_done: int, metrics: Mapping[str, float], speed: float
    ) -> bool:
        """A running stage tells its progress. Return False to stop after this epoch."""
        entry = self._entries[key]
        if entry.slot != slot:
            return False
        known = entry.progress.epochs_done
        # A worker that died between its checkpoint and its word has run one epoch more.
        self.executed_epochs += epochs_done - known if 0 < known < epochs_done else 1
        entry.attempts = 1  # spot nodes may take a long stage's slots as often as they like
        entry.progress = StageProgress("running", epochs_done, metrics, speed)
        if entry.wanted_by:
            return True
        self._release(entry)
        return False

    def finished(self, slot: int, key: str, snapshot: Any, metrics: Mapping[str, float]) -> None:
        """A stage is done and its snapshot is durable."""
        entry = self._entries[key]
        if entry.progress.status == "done":
            return
        entry.executed_for = next(iter(entry.wanted_by), None)
        entry.progress = StageProgress("done", entry.stage.epochs, metrics)
        entry.snapshot = snapshot
        entry.slot = None
        self._last[slot] = key
        for done in (key, *entry.stage.inputs.keys):
            self._let_go(done)

    def failed(self, slot: int, key: str, error: str) -> None:
        """A stage cannot be done; so cannot those that need it."""
        entry = self._entries[key]
        entry.slot = None
        self._fail(entry, error)

    def lost(self, slot: int, key: str, missing: str) -> None:
        """An input of a stage is gone from the storage: it is wanted again, and then the stage."""
        for entry in (self._entries[missing], self._entries[key]):
            self._release(entry)
            entry.attempts = 0
        source = self._entries[missing]
        source.progress, source.snapshot = WANTED, None
        source.wanted_by.update(self._entries[key].wanted_by)

    def slot_lost(self, slot: int) -> None:
        """A slot's workers died: what it ran is wanted again, unless it keeps killing slots."""
        for entry in self._entries.values():
            if entry.slot == slot:
                self._release(entry)
                if entry.attempts >= MAX_ATTEMPTS:
                    self._fail(entry, f"its workers died {entry.attempts} times in the same epoch")
        self._last.pop(slot, None)

    def abandon(self, error: str) -> None:
        """No slot is left: what is not done cannot be."""
        for entry in self._entries.values():
            if entry.progress.status in ("wanted", "running"):
                entry.slot = None
                self._fail(entry, error)

    # ---- what people see ----

    def progress(self) -> StudyProgress:
        """Progress of every stage; holds no snapshot."""
        entries = self._entries
        return StudyProgress(
            stages={key: entry.progress for key, entry in entries.items()},
            given_up=dict(self._given_up),
            executed_for={k: e.executed_for for k, e in entries.items() if e.executed_for},
            executed_epochs=self.executed_epochs,
            num_parallel=self.num_parallel,
        )

    # ---- decisions ----

    def _decide(self, slot: int) -> Answer:
        ready = [entry for entry in self._entries.values() if self._is_ready(entry)]
        if ready:
            entry = min(ready, key=lambda entry: self._urgency(entry, slot))
            entry.slot = slot
            entry.attempts += 1
            entry.progress = StageProgress("running", entry.progress.epochs_done)
            snapshots = {key: self._entries[key].snapshot for key in entry.stage.inputs.keys}
            held = {key: snapshot for key, snapshot in snapshots.items() if snapshot is not None}
            return Run(entry.experiment, entry.stage, held)
        return Wait() if self.has_work() else Stop()

    def _is_ready(self, entry: _Entry) -> bool:
        if entry.progress.status != "wanted" or not entry.wanted_by:
            return False
        return all(self._entries[k].progress.status == "done" for k in entry.stage.inputs.keys)

    def _urgency(self, entry: _Entry, slot: int) -> tuple[bool, int]:
        """Small first: what goes on from the slot's last stage, then what most trials wait for."""
        return (
            self._last.get(slot) not in entry.stage.inputs.keys,
            -len(entry.wanted_by),
        )

    def _has_work(self) -> bool:
        return any(
            e.wanted_by and e.progress.status in ("wanted", "running")
            for e in self._entries.values()
        )

    def _release(self, entry: _Entry) -> None:
        entry.slot = None
        entry.progress = StageProgress("wanted", entry.progress.epochs_done)

    def _let_go(self, key: str) -> None:
        """Let the object store drop a snapshot that no stage waits for; the storage keeps it."""
        waiting = (user.progress.status in ("wanted", "running") for user in self._users(key))
        if not any(waiting):
            self._entries[key].snapshot = None

    def _fail(self, entry: _Entry, error: str) -> None:
        if entry.progress.status == "done":
            return
        entry.progress = StageProgress("failed", error=error)
        for user in self._users(entry.stage.key):
            self._fail(user, error)

    def _users(self, key: str) -> Iterable[_Entry]:
        """The stages that need this one."""
        return [entry for entry in self._entries.values() if key in entry.stage.inputs.keys]
