"""Which stage is done, running or wanted, and what a slot does next. Decides; knows no Ray.

Trials submit plans, slots ask for work. Stages with equal keys are one stage, whoever wants it.
All ranks of a slot ask with the same (slot, incarnation, number) and get the same answer, so no
collective is held open while a slot is idle. A slot that came back after a failure asks with a new
incarnation; what its old one was running is wanted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rayprune.config import Experiment
from rayprune.plan import Stage

Status = Literal["wanted", "running", "done", "failed"]
MAX_ATTEMPTS = 4  # of one epoch, when its slots keep dying: then the stage is what kills them


@dataclass(frozen=True)
class Run:
    """Run this stage, from the snapshot of `parent` (None for a dense run)."""

    experiment: Experiment
    stage: Stage
    parent: Any
    """What `finished` was told for the stage before; None if it has to be read from the storage."""


@dataclass(frozen=True)
class Wait:
    """Nothing can be run now; ask again."""


@dataclass(frozen=True)
class Stop:
    """Nothing will be wanted any more: the slot may end."""


Answer = Run | Wait | Stop


@dataclass(frozen=True)
class StageState:
    """What a trial hears about a stage it waits for."""

    status: Status
    epochs_done: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    error: str | None = None
    snapshot: Any = None
    executed_for: str | None = None
    """The trial on whose behalf it was run; None if it was found finished."""


@dataclass
class _Entry:
    experiment: Experiment
    stage: Stage
    wanted_by: dict[str, None]  # in order of submission
    state: StageState = StageState("wanted")
    slot: int | None = None
    attempts: int = 0


class Ledger:
    """The one place that knows every stage of a study."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._incarnations: dict[int, int] = {}
        self._answers: dict[tuple[int, int, int], Answer] = {}
        self._last: dict[int, str] = {}  # slot -> key of the stage whose weights it holds
        self._closed = False
        self.executed_epochs = 0

    # ---- trials ----

    def submit(self, trial: str, experiment: Experiment, plan: Sequence[Stage]) -> None:
        """A trial wants all stages of its plan."""
        for stage in plan:
            entry = self._entries.get(stage.key)
            if entry is None:
                entry = self._entries[stage.key] = _Entry(experiment, stage, {})
            entry.wanted_by[trial] = None

    def found(self, key: str, snapshot: Any, metrics: Mapping[str, float]) -> None:
        """A stage that an earlier study or an earlier start of this one has finished."""
        entry = self._entries[key]
        if entry.state.status == "wanted":
            entry.state = StageState("done", entry.stage.epochs, metrics, snapshot=snapshot)

    def withdraw(self, trial: str) -> None:
        """A trial wants nothing any more; what only it wanted is not started, or ends early."""
        for entry in self._entries.values():
            entry.wanted_by.pop(trial, None)

    def state(self, key: str) -> StageState:
        """How far a stage is."""
        return self._entries[key].state

    def has_work(self) -> bool:
        """Whether a slot may be needed: plans may still come, or stages are not done."""
        return not self._closed or self._has_work()

    def close(self) -> None:
        """No more plans will come: slots may stop when nothing is left to run."""
        self._closed = True

    # ---- slots ----

    def join(self, slot: int) -> int:
        """A slot starts, or starts again after a failure; gives its incarnation."""
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
        """A running stage tells its progress; False if nobody wants it any more."""
        entry = self._entries[key]
        if entry.slot != slot:
            return False
        known = entry.state.epochs_done
        # A worker that died between its checkpoint and its word has run one epoch more.
        self.executed_epochs += epochs_done - known if 0 < known < epochs_done else 1
        entry.attempts = 1  # spot nodes may take a long stage's slots as often as they like
        entry.state = StageState("running", epochs_done, metrics, speed)
        if entry.wanted_by:
            return True
        self._release(entry)
        return False

    def finished(self, slot: int, key: str, snapshot: Any, metrics: Mapping[str, float]) -> None:
        """A stage is done and its snapshot is durable."""
        entry = self._entries[key]
        if entry.state.status == "done":
            return
        wanted_by = next(iter(entry.wanted_by), None)
        entry.state = StageState(
            "done", entry.stage.epochs, metrics, snapshot=snapshot, executed_for=wanted_by
        )
        entry.slot = None
        self._last[slot] = key
        self._let_go(key)
        if entry.stage.parent is not None:
            self._let_go(entry.stage.parent)

    def failed(self, slot: int, key: str, error: str) -> None:
        """A stage cannot be done; so cannot those after it."""
        entry = self._entries[key]
        entry.slot = None
        self._fail(entry, error)

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
            if entry.state.status in ("wanted", "running"):
                entry.slot = None
                self._fail(entry, error)

    # ---- what people see ----

    def states(self) -> dict[str, StageState]:
        """Every stage's state, by key."""
        return {key: entry.state for key, entry in self._entries.items()}

    def running(self) -> dict[int, Stage]:
        """What each busy slot runs."""
        return {e.slot: e.stage for e in self._entries.values() if e.slot is not None}

    def executed_by(self) -> dict[str, str]:
        """Key -> the trial that a stage was run for, for every stage that was run here."""
        return {
            key: entry.state.executed_for
            for key, entry in self._entries.items()
            if entry.state.executed_for is not None
        }

    # ---- decisions ----

    def _decide(self, slot: int) -> Answer:
        ready = [entry for entry in self._entries.values() if self._is_ready(entry)]
        if ready:
            entry = min(ready, key=lambda entry: self._urgency(entry, slot))
            entry.slot = slot
            entry.attempts += 1
            entry.state = StageState("running", entry.state.epochs_done)
            parent = entry.stage.parent
            return Run(
                entry.experiment,
                entry.stage,
                self._entries[parent].state.snapshot if parent else None,
            )
        return Wait() if self.has_work() else Stop()

    def _is_ready(self, entry: _Entry) -> bool:
        if entry.state.status != "wanted" or not entry.wanted_by:
            return False
        parent = entry.stage.parent
        return parent is None or self._entries[parent].state.status == "done"

    def _urgency(self, entry: _Entry, slot: int) -> tuple[bool, int]:
        """Small first: a child of what the slot has just done, then what most trials wait for."""
        return (
            entry.stage.parent is None or entry.stage.parent != self._last.get(slot),
            -len(entry.wanted_by),
        )

    def _has_work(self) -> bool:
        return any(
            e.wanted_by and e.state.status in ("wanted", "running") for e in self._entries.values()
        )

    def _release(self, entry: _Entry) -> None:
        entry.slot = None
        entry.state = StageState("wanted", entry.state.epochs_done)

    def _let_go(self, key: str) -> None:
        """Let the object store drop a snapshot that no stage waits for; the storage keeps it."""
        children = self._children(key)
        if not any(child.state.status in ("wanted", "running") for child in children):
            entry = self._entries[key]
            entry.state = replace(entry.state, snapshot=None)

    def _fail(self, entry: _Entry, error: str) -> None:
        if entry.state.status == "done":
            return
        entry.state = StageState("failed", error=error)
        for child in self._children(entry.stage.key):
            self._fail(child, error)

    def _children(self, key: str) -> Iterable[_Entry]:
        return [entry for entry in self._entries.values() if entry.stage.parent == key]
