"""Which stage is done, running or wanted, and what a slot does next. Decides; knows no Ray.

Trials submit plans, slots ask for work. Stages with equal keys are one stage, whoever wants it.
Every word of a slot carries its incarnation: one life of its workers. A life ends when the slot
joins anew, when it was silent for too long, or when it makes no progress; what it ran is then
wanted again, and nothing that it still says changes anything.
"""

from __future__ import annotations

import heapq
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayprune.config import Experiment
from rayprune.plan import Stage
from rayprune.results.progress import Changes, StageProgress

LEASE_S = 20.0  # a slot that was silent for longer is taken for dead
MAX_FAILURES = 3  # of one epoch on fresh workers: one more, and the stage is what kills them
# A stage that takes this many times its own longest epoch for the next one hangs. Before its first
# epoch nothing is known of it: a first epoch may read a large data set.
PATIENCE, LEAST_PATIENCE_S, FIRST_PATIENCE_S = 20, 600.0, 6 * 3600.0
ELSEWHERE_S = 5.0  # how soon a stage that another study runs is looked at again
IDLE_S = 60.0  # how long a slot without work keeps its CPUs and GPUs
# A slot takes about this long to start: it is wanted before the stages are ready that it will run.
AHEAD_S = 30.0
# A stage comes before what follows on the one that a slot holds if the way from it to the end of a
# trial is at least this share of the time that all slots together still need.
CRITICAL = 0.5


@dataclass(frozen=True)
class Incarnation:
    """One life of a slot's workers."""

    slot: int
    ledger: str
    """Which start of the ledger it joined."""
    number: int


@dataclass(frozen=True)
class Run:
    """Run this stage."""

    experiment: Experiment
    stage: Stage
    trial: str
    """The trial that asked for it first."""


@dataclass(frozen=True)
class Wait:
    """Nothing can be run now; ask again."""


@dataclass(frozen=True)
class Rejoin:
    """This life is over, or the ledger is a new one; join again."""


@dataclass(frozen=True)
class Stop:
    """No work remains, or another life of this slot has begun; the workers exit."""


Answer = Run | Wait | Rejoin | Stop

_Urgency = tuple[int, int, int]

WANTED = StageProgress("wanted")
ACTIVE = ("wanted", "running")


@dataclass
class _Entry:
    experiment: Experiment
    stage: Stage
    order: int
    missing: set[str]
    """Inputs that are not done."""
    wanted_by: dict[str, None] = field(default_factory=dict)  # in order of submission
    progress: StageProgress = WANTED
    history: tuple[Mapping[str, float], ...] = ()
    """Metrics of each epoch."""
    snapshot: Any = None
    num_waiting: int = 0
    """Wanted stages that need this one."""
    executed_for: str | None = None
    runs_on: Incarnation | None = None
    deaths: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """Why workers died in the epoch after the furthest one, and on which nodes."""
    furthest: int = 0
    progressed_at: float = 0.0
    longest_epoch_s: float | None = None
    last_epoch_s: float | None = None
    not_before: float = 0.0
    path: int = 0
    """Epochs of the longest way from the beginning of this stage to the end of a trial."""
    left: int = 0
    """Epochs that are wanted and not run."""
    is_counted: bool = False
    """Among the ready ones."""

    @property
    def is_open(self) -> bool:
        return bool(self.wanted_by) and self.progress.status in ACTIVE


@dataclass
class _Life:
    """What is known of a slot's present workers."""

    incarnation: Incarnation
    num_workers: int
    nodes: frozenset[str]
    heard_at: float
    running: str | None = None
    held: str | None = None
    """Key of the stage whose weights the workers hold."""
    answered: tuple[int, Answer] | None = None
    mistakes: dict[int, str] = field(default_factory=dict)
    """Rank -> what it met in the stage that runs."""
    agreed: str | None = None
    """Key of the last stage in which all ranks met a mistake."""
    idle_since: float | None = None
    """When it asked for work and there was none."""


@dataclass
class Ledger:
    """The one place that knows every stage of a study."""

    max_failures: int = MAX_FAILURES
    """How often a stage is tried again in the same epoch after its workers died; -1: always."""
    idle_timeout_s: float = IDLE_S
    """How long a slot waits for work before it ends."""
    clock: Callable[[], float] = time.monotonic
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of this start of the ledger."""
    dead_nodes: Collection[str] = ()
    """What died on one of these was not its stage's fault."""
    executed_epochs: int = 0
    lost_epochs: int = 0
    """Of these, the ones that had to be run again."""
    shared_epochs: int = 0
    """That separate runs of the trials would have run as well."""
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _users: dict[str, list[str]] = field(default_factory=dict)
    """Key -> the stages that need it."""
    _plans: dict[str, Sequence[Stage]] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)
    """Trials whose shared epochs were counted: one that was paused submits its plan again."""
    _epochs_left: int = 0
    _lives: dict[int, _Life] = field(default_factory=dict)
    _num_joined: dict[int, int] = field(default_factory=dict)
    _ready: dict[str | None, list[tuple[_Urgency, str]]] = field(default_factory=dict)
    """Heaps of what is ready: for each stage of what needs it, and for None of all. The most urgent
    first; what became stale is skipped."""
    _num_ready: int = 0
    _later: set[str] = field(default_factory=set)
    _open: set[str] = field(default_factory=set)
    _news: list[_Entry | str] = field(default_factory=list)
    """Stages whose progress changed, and what people should know; its length is the version."""
    _abandoned: str | None = None
    _closed: bool = False

    # ---- trials ----

    def submit(self, trial: str, experiment: Experiment, plan: Sequence[Stage]) -> None:
        """A trial wants all stages of its plan."""
        self._plans[trial] = plan
        for stage in plan:
            if stage.key not in self._entries:
                self._enter(experiment, stage)
            elif trial not in self._counted:
                self.shared_epochs += stage.epochs
        self._counted.add(trial)
        for entry, path in self._with_paths(plan):
            entry.wanted_by[trial] = None
            entry.path = max(entry.path, path)
            self._touch(entry)

    def knows(self, key: str) -> bool:
        """Whether a plan with this stage was submitted."""
        return key in self._entries

    def found(
        self, key: str, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]
    ) -> None:
        """A stage that an earlier start or another study has finished."""
        entry = self._entries[key]
        if entry.progress.status == "wanted":
            entry.history = tuple(history)
            self._is_done(entry, metrics)

    def withdraw(self, trial: str) -> None:
        """A trial wants nothing any more; what only it wanted is not started, or ends early."""
        for entry, path in self._with_paths(self._plans.pop(trial, ())):
            if trial in entry.wanted_by:
                del entry.wanted_by[trial]
                if path == entry.path and entry.is_open:
                    entry.path = self._longest_path(entry)
                self._touch(entry)

    def withdraw_all(self) -> None:
        """No trial waits any more: what still runs ends at its next epoch."""
        for trial in list(self._plans):
            self.withdraw(trial)

    def state(self, key: str) -> StageProgress:
        """Progress of one stage."""
        return self._entries[key].progress

    def history(self, key: str) -> tuple[Mapping[str, float], ...]:
        """Metrics of each epoch of a stage, as far as it has come."""
        return self._entries[key].history

    def has_work(self) -> bool:
        """Whether a slot may be needed: plans may still come, or stages are not done."""
        return self._abandoned is None and (not self._closed or bool(self._open))

    def close(self) -> None:
        """No more plans will come: slots may stop when nothing is left to run."""
        self._closed = True

    # ---- slots ----

    def join(
        self, slot: int, num_workers: int = 1, nodes: Collection[str] = frozenset()
    ) -> Incarnation:
        """A slot's workers start their life; the one before, if it was not over, is lost."""
        self.slot_lost(slot, "its workers died")
        number = self._num_joined[slot] = self._num_joined.get(slot, 0) + 1
        incarnation = Incarnation(slot, self.identity, number)
        self._lives[slot] = _Life(incarnation, num_workers, frozenset(nodes), self.clock())
        return incarnation

    def beat(self, incarnation: Incarnation) -> bool:
        """The workers live. Return False if they are to end: they were given up."""
        life = self._alive(incarnation)
        return life is not None or incarnation.ledger != self.identity

    def joined(self) -> frozenset[int]:
        """The slots whose workers live."""
        return frozenset(self._lives)

    def num_useful_slots(self) -> int:
        """Slots that have a stage to run, now or by the time one more would have started."""
        running = self._running_entries()
        ending = {entry.stage.key for entry in running if self._ends_soon(entry)}
        soon = {user for key in ending for user in self._users.get(key, ())}
        follow = sum(self._follows(self._entries[user], ending) for user in soon)
        now = len(running) + self._num_ready
        return max(now, now - len(ending) + follow)

    def next_stage(self, incarnation: Incarnation, number: int) -> Answer:
        """The `number`-th answer to this life; asked again, it is the same."""
        life = self._alive(incarnation)
        if life is None:
            is_replaced = incarnation.ledger == self.identity and incarnation.slot in self._lives
            return Stop() if is_replaced or not self.has_work() else Rejoin()
        if life.answered is None or life.answered[0] != number:
            self._stop(life)  # it asks for more, so what it ran is over
            answer = self._decide(life)
            if isinstance(answer, Wait):
                return answer  # not an answer yet
            if isinstance(answer, Stop):
                del self._lives[incarnation.slot]
                return answer
            life.answered = (number, answer)
        return life.answered[1]

    def epoch_done(
        self,
        incarnation: Incarnation,
        key: str,
        history: Sequence[Mapping[str, float]],
        samples_per_second: float,
    ) -> bool:
        """A running stage tells the metrics of all its epochs so far, the last one just done.

        Return False to stop after this epoch.
        """
        entry = self._running(incarnation, key)
        if entry is None:
            return False
        known, done = entry.progress.epochs_done, len(history)
        # A worker that died between its checkpoint and its word has run one epoch more.
        run = done - known if 0 < known < done else 1
        self.executed_epochs += run
        self.lost_epochs += max(0, run - max(0, done - entry.furthest))
        if done > entry.furthest:
            entry.furthest = done
            entry.deaths.clear()
        now = self.clock()
        entry.last_epoch_s = now - entry.progressed_at
        entry.longest_epoch_s = max(entry.longest_epoch_s or 0.0, entry.last_epoch_s)
        entry.progressed_at = now
        entry.history = tuple(history)
        self._becomes(entry, StageProgress("running", done, history[-1], samples_per_second))
        if not entry.wanted_by:
            self._release(entry)
        return bool(entry.wanted_by)

    def finished(
        self, incarnation: Incarnation, key: str, snapshot: Any, metrics: Mapping[str, float]
    ) -> None:
        """A stage is done and its snapshot is durable."""
        entry = self._running(incarnation, key)
        if entry is None:
            return
        life = self._lives[incarnation.slot]
        life.running, life.held = None, key
        entry.executed_for = next(iter(entry.wanted_by), None)
        entry.runs_on = None
        entry.snapshot = snapshot
        self._is_done(entry, metrics)

    def snapshot(self, key: str) -> Any:
        """What `finished` was told; None once nothing waited for it: it is in the storage."""
        return self._entries[key].snapshot if key in self._entries else None

    def failed(self, incarnation: Incarnation, key: str, error: str) -> None:
        """A stage cannot be done, and neither can those that need it: a verdict."""
        entry = self._running(incarnation, key)
        if entry is not None:
            self._lives[incarnation.slot].running = None
            self._fail(entry, error)

    def mistake(self, incarnation: Incarnation, key: str, rank: int, error: str) -> None:
        """A rank met a mistake in a stage; once all ranks have, the stage fails: a verdict."""
        if self._running(incarnation, key) is None:
            return
        life = self._lives[incarnation.slot]
        life.mistakes[rank] = error
        if len(life.mistakes) == life.num_workers:
            self.failed(incarnation, key, life.mistakes[0])
            life.agreed = key

    def is_agreed(self, incarnation: Incarnation, key: str) -> bool:
        """Whether all ranks met a mistake in this stage, and are in the same place."""
        life = self._alive(incarnation)
        return life is not None and life.agreed == key

    def lost(self, incarnation: Incarnation, key: str, missing: str) -> None:
        """An input of a stage is gone from the storage: it is wanted again, and then the stage."""
        entry = self._running(incarnation, key)
        if entry is None:
            return
        source = self._entries[missing]
        if source.progress.status == "done":
            source.snapshot, source.history = None, ()
            for user in self._users_of(missing):
                user.missing.add(missing)
                self._touch(user)
            self._becomes(source, WANTED)
        self._release(entry)

    def elsewhere(self, incarnation: Incarnation, key: str) -> None:
        """Another study runs this stage: it is looked at again in a while."""
        entry = self._running(incarnation, key)
        if entry is not None:
            entry.not_before = self.clock() + ELSEWHERE_S
            self._release(entry)

    def slot_lost(self, slot: int, reason: str, *, is_blamed: bool = True) -> int:
        """A slot's workers died. Return how many of its lives have joined so far.

        What they ran is wanted again, unless it is to blame and keeps killing workers.
        """
        life = self._lives.pop(slot, None)
        if life is None:  # nothing had joined, or it was given up before
            return self._num_joined.get(slot, 0)
        entry = self._stop(life)
        self._news.append(f"slot {slot}: {reason}" + ("" if entry is None else _goes_on(entry)))
        if entry is not None and is_blamed:
            entry.deaths.append((reason, life.nodes))
            self._judge(entry)
        return self._num_joined[slot]

    def abandon(self, error: str) -> None:
        """Nothing more can be run: what is not done fails."""
        self._abandoned = error
        for key in list(self._open):
            self._fail(self._entries[key], error)

    # ---- time ----

    def expire(self) -> list[int]:
        """Give up lives that are silent or hang; return their slots."""
        now = self.clock()
        for key in [k for k in self._later if self._entries[k].not_before <= now]:
            self._later.discard(key)
            self._touch(self._entries[key])
        given_up = []
        for slot, life in list(self._lives.items()):
            reason = self._is_over(life, now)
            if reason is not None:
                self.slot_lost(slot, reason)
                given_up.append(slot)
        return given_up

    def waits_elsewhere(self) -> tuple[str, ...]:
        """Stages that another study runs, as far as is known."""
        return tuple(self._later)

    # ---- what people see ----

    @property
    def num_ready(self) -> int:
        """Stages that only lack a slot."""
        return self._num_ready

    @property
    def num_running(self) -> int:
        """Stages that run."""
        return len(self._running_entries())

    def has_ready(self) -> bool:
        """Whether a slot that asks would be answered at once."""
        return self._first_ready() is not None or not self.has_work()

    def changes(self, since: int = 0) -> Changes:
        """What became different after that version; holds no snapshot."""
        news = self._news[since:]
        entries = {entry.stage.key: entry for entry in news if isinstance(entry, _Entry)}
        return Changes(
            ledger=self.identity,
            version=len(self._news),
            stages={key: entry.progress for key, entry in entries.items()},
            executed_for={k: e.executed_for for k, e in entries.items() if e.executed_for},
            executed_epochs=self.executed_epochs,
            notes=tuple(note for note in news if isinstance(note, str)),
        )

    # ---- decisions ----

    def _enter(self, experiment: Experiment, stage: Stage) -> _Entry:
        sources = [self._entries[key] for key in stage.inputs.keys]
        missing = {s.stage.key for s in sources if s.progress.status != "done"}
        entry = _Entry(experiment, stage, len(self._entries), missing)
        self._entries[stage.key] = entry
        self._news.append(entry)
        for source in sources:
            self._users.setdefault(source.stage.key, []).append(stage.key)
        errors = [s.progress.error for s in sources if s.progress.status == "failed"]
        error = self._abandoned or next(iter(errors), None)
        if error is not None:
            entry.progress = StageProgress("failed", error=error)
        return entry

    def _alive(self, incarnation: Incarnation) -> _Life | None:
        """The life that speaks, if it is not over."""
        life = self._lives.get(incarnation.slot)
        if life is None or life.incarnation != incarnation:
            return None
        life.heard_at = self.clock()
        return life

    def _running_entries(self) -> list[_Entry]:
        """Stages that a life runs; not one that nobody wants any more, and that ends."""
        running = [
            (self._entries[life.running], life) for life in self._lives.values() if life.running
        ]
        return [entry for entry, life in running if entry.runs_on == life.incarnation]

    def _running(self, incarnation: Incarnation, key: str) -> _Entry | None:
        """The stage that this life runs; None if it does not, or not any more."""
        if self._alive(incarnation) is None:
            return None
        entry = self._entries.get(key)
        return entry if entry is not None and entry.runs_on == incarnation else None

    def _is_over(self, life: _Life, now: float) -> str | None:
        """Why this life is given up; None if it goes on."""
        if now - life.heard_at > LEASE_S:
            return f"its workers were silent for {now - life.heard_at:.0f} s"
        if life.running is None:
            return None
        entry = self._entries[life.running]
        if entry.runs_on != life.incarnation:
            return None
        longest, silent = entry.longest_epoch_s, now - entry.progressed_at
        patience = (
            FIRST_PATIENCE_S if longest is None else max(LEAST_PATIENCE_S, PATIENCE * longest)
        )
        return f"no epoch ended within {silent:.0f} s" if silent > patience else None

    def _decide(self, life: _Life) -> Answer:
        entry = self._first_ready()
        if entry is None:
            return self._idle(life)
        # What follows on what it holds comes first, so that trials end early and little is loaded.
        following = None if life.held is None else self._first_ready(life.held)
        if following is not None:
            is_level = _urgency(following)[:-1] <= _urgency(entry)[:-1]
            entry = following if is_level or not self._is_critical(entry) else entry
        life.idle_since = None
        life.running, life.mistakes = entry.stage.key, {}
        entry.runs_on = life.incarnation
        entry.progressed_at = self.clock()
        if entry.longest_epoch_s is None and entry.stage.inputs.weights is not None:
            entry.longest_epoch_s = self._entries[entry.stage.inputs.weights].longest_epoch_s
        self._becomes(entry, StageProgress("running", entry.progress.epochs_done))
        return Run(entry.experiment, entry.stage, next(iter(entry.wanted_by)))

    def _is_critical(self, entry: _Entry) -> bool:
        """Whether what follows on a stage may decide when the study ends."""
        return entry.path >= CRITICAL * self._epochs_left / max(1, len(self._lives))

    def _with_paths(self, plan: Sequence[Stage]) -> Iterator[tuple[_Entry, int]]:
        """The entries of a plan, the last one first, and the epochs from each to its end."""
        path = 0
        for stage in reversed(plan):
            path += stage.epochs
            yield self._entries[stage.key], path

    def _longest_path(self, wanted: _Entry) -> int:
        """Of the trials that want a stage now."""
        plans = [self._plans[trial] for trial in wanted.wanted_by]
        return max(p for plan in plans for entry, p in self._with_paths(plan) if entry is wanted)

    def _idle(self, life: _Life) -> Answer:
        """There is nothing to run now: a life waits a while, unless nothing will ever come."""
        now = self.clock()
        life.idle_since = now if life.idle_since is None else life.idle_since
        if not self.has_work():
            return Stop()
        is_needed = len(self._lives) <= self.num_useful_slots()
        return Wait() if is_needed or now - life.idle_since < self.idle_timeout_s else Stop()

    def _ends_soon(self, entry: _Entry) -> bool:
        """Whether a stage that runs ends within the time that a slot takes to start."""
        left = entry.stage.epochs - entry.progress.epochs_done
        # The last one: the first also reads the data, and may take many times as long.
        epoch_s = entry.last_epoch_s
        return left == 0 or (epoch_s is not None and left * epoch_s <= AHEAD_S)

    def _follows(self, entry: _Entry, done: Collection[str]) -> bool:
        """Whether a stage is ready once these are done."""
        return entry.is_open and entry.missing <= set(done)

    def _first_ready(self, needs: str | None = None) -> _Entry | None:
        """The most urgent stage that is ready, of all or of those that need one."""
        heap = self._ready.get(needs, [])
        while heap:
            urgency, key = heap[0]
            entry = self._entries[key]
            if self._is_ready(entry) and urgency == _urgency(entry):
                return entry
            heapq.heappop(heap)
        return None

    def _is_ready(self, entry: _Entry) -> bool:
        is_wanted = entry.progress.status == "wanted" and bool(entry.wanted_by)
        return is_wanted and not entry.missing and entry.not_before <= self.clock()

    def _becomes(self, entry: _Entry, progress: StageProgress) -> None:
        """The progress of a stage is another: that is news."""
        entry.progress = progress
        self._news.append(entry)
        self._touch(entry)

    def _touch(self, entry: _Entry) -> None:
        """Bring everything that is kept about all stages in line with one that has changed."""
        key = entry.stage.key
        if entry.is_open != (key in self._open):
            (self._open.add if entry.is_open else self._open.discard)(key)
            for source in entry.stage.inputs.keys:
                self._count_waiting(self._entries[source], 1 if entry.is_open else -1)
        left = entry.stage.epochs - entry.progress.epochs_done if entry.is_open else 0
        self._epochs_left += left - entry.left
        entry.left = left
        is_ready = self._is_ready(entry)
        self._num_ready += is_ready - entry.is_counted
        entry.is_counted = is_ready
        if entry.progress.status == "wanted" and entry.not_before > self.clock():
            self._later.add(key)
        elif is_ready:
            for needs in (None, *entry.stage.inputs.keys):
                heapq.heappush(self._ready.setdefault(needs, []), (_urgency(entry), key))

    def _count_waiting(self, source: _Entry, difference: int) -> None:
        """Let the object store drop a snapshot that no stage waits for; the storage keeps it."""
        source.num_waiting += difference
        if source.num_waiting == 0:
            source.snapshot = None

    def _is_done(self, entry: _Entry, metrics: Mapping[str, float]) -> None:
        if entry.num_waiting == 0:
            entry.snapshot = None
        self._later.discard(entry.stage.key)
        self._becomes(entry, StageProgress("done", entry.stage.epochs, metrics))
        for user in self._users_of(entry.stage.key):
            user.missing.discard(entry.stage.key)
            if self._is_ready(user):
                self._touch(user)

    def _stop(self, life: _Life) -> _Entry | None:
        """A life runs nothing any more; return what it ran, which is wanted again."""
        entry = None if life.running is None else self._entries[life.running]
        life.running = None
        if entry is None or entry.runs_on != life.incarnation:
            return None
        self._release(entry)
        return entry

    def _release(self, entry: _Entry) -> None:
        """A stage that no slot runs any more is wanted again."""
        entry.runs_on = None
        self._becomes(entry, StageProgress("wanted", entry.progress.epochs_done))

    def _judge(self, entry: _Entry) -> None:
        """A stage in whose epoch fresh workers die again and again is what kills them."""
        blamed = [reason for reason, nodes in entry.deaths if not nodes & set(self.dead_nodes)]
        if 0 <= self.max_failures < len(blamed):
            epoch = min(entry.stage.first_epoch + entry.furthest + 1, entry.stage.last_epoch)
            times = f"its workers died {len(blamed)} times in epoch {epoch}"
            self._fail(entry, f"{times}, the last time: {blamed[-1]}")

    def _fail(self, entry: _Entry, error: str) -> None:
        failing = [entry]
        while failing:
            entry = failing.pop()
            if entry.progress.status in ACTIVE:
                entry.runs_on = None
                epochs_done = entry.progress.epochs_done
                self._becomes(entry, StageProgress("failed", epochs_done, error=error))
                failing += self._users_of(entry.stage.key)

    def _users_of(self, key: str | None) -> Iterable[_Entry]:
        """The stages that need this one."""
        return [self._entries[user] for user in self._users.get(key or "", ())]


def _goes_on(entry: _Entry) -> str:
    what = "the dense run" if entry.stage.is_dense else f"cycle {entry.stage.cycle}"
    return f"; {what} goes on after {entry.progress.epochs_done} of {entry.stage.epochs} epochs"


def _urgency(entry: _Entry) -> _Urgency:
    """Small first: the longest way to go, then what most trials wait for, then the oldest."""
    return -entry.path, -len(entry.wanted_by), entry.order
