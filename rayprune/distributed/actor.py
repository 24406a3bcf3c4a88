"""The actor that shares one ledger with a whole cluster; every decision is the ledger's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray

from rayprune.config import Scaling
from rayprune.distributed.gauges import Gauges
from rayprune.distributed.groups import remove_groups
from rayprune.distributed.ledger import LEASE_S, Answer, Incarnation, Ledger, Wait
from rayprune.results.faults import reach
from rayprune.results.progress import Changes, StageProgress
from rayprune.results.stages import Manifest, read_manifests
from rayprune.trials import TrialPlan

POLL_S = 5.0  # how long a question to the ledger is held open before it is asked again
TICK_S = 1.0
AGREE_S = 20.0  # how long a rank that met a mistake waits for the others to meet it as well
WORK, PLANS = "work", "plans"  # what is waited for, besides keys of stages
MAX_WAITING = 10_000  # questions that are held open at the same time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """What a trial hears of a stage."""

    progress: StageProgress
    history: Sequence[Mapping[str, float]]
    """Metrics of the epochs that it has not heard of."""


class LedgerActor:
    """A ledger that is asked from everywhere, and wakes who waits for news.

    When its process dies, it is started again: the driver tells it the plans, trials submit theirs,
    slots join, and what is finished is found in the storage.
    """

    def __init__(self, study: str, storage: str, scaling: Scaling) -> None:
        self._ledger = Ledger(scaling.max_failures, scaling.idle_timeout_s)
        self._storage, self._gauges = storage, Gauges(study)
        self._trials: dict[str, TrialPlan] = {}
        self._tags: dict[int, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}  # the longest first
        self._told = 0  # version of the ledger that all who wait have heard of
        self._first_epoch = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    # ---- trials ----

    async def learn(self, trials: Sequence[TrialPlan]) -> None:
        """The driver tells plans, each once: a trial's process hears of its own alone."""
        self._trials |= {trial.name: trial for trial in trials}
        self._wake(PLANS)

    async def submit(self, *names: str) -> TrialPlan | None:
        """Trials want the stages of their plans; return the last, or None until they are known."""
        await self._until(PLANS, lambda: self._trials.keys() >= set(names))
        trials = [self._trials[name] for name in names if name in self._trials]
        if len(trials) < len(names):
            return None
        stages = (stage for trial in trials for stage in trial.plan)
        new = {stage.key for stage in stages if not self._ledger.knows(stage.key)}
        found = await asyncio.to_thread(self._finished, new)  # others are answered meanwhile
        for trial in trials:
            self._ledger.submit(trial.name, trial.experiment, trial.plan)
        self._tell_found(found)
        self._tell()
        return trials[-1]

    async def withdraw(self, trial: str) -> None:
        self._ledger.withdraw(trial)
        self._tell()

    async def close(self) -> None:
        """Tune has ended and no trial waits any more: slots end, the busy ones after an epoch."""
        self._ledger.withdraw_all()
        self._ledger.close()
        self._tell()

    async def wait_for(self, key: str, epochs_seen: int) -> News | None:
        """News of a stage once it is over or past `epochs_seen`, or after a while.

        None from a ledger that was started again and does not know the stage: submit again.
        """

        def has_news() -> bool:
            state = self._ledger.state(key)
            return state.status in ("done", "failed") or state.epochs_done > epochs_seen

        if not self._ledger.knows(key):
            return None
        await self._until(key, has_news)
        return News(self._ledger.state(key), self._ledger.history(key)[epochs_seen:])

    # ---- slots ----

    async def join(
        self, slot: int, tag: int, num_workers: int, nodes: Collection[str]
    ) -> Incarnation:
        self._tags[slot] = tag
        if self._clock is None:
            self._clock = asyncio.create_task(self._tick())
        incarnation = self._ledger.join(slot, num_workers, nodes)
        self._tell()
        return incarnation

    async def beat(self, incarnation: Incarnation) -> bool:
        return self._ledger.beat(incarnation)

    async def first_epoch_done(self) -> None:
        """Returns when a slot is at work."""
        await self._first_epoch.wait()

    async def useful_slots(self) -> tuple[int, frozenset[int]]:
        """How many slots have something to run, now or soon, and which ones live."""
        return self._ledger.num_useful_slots(), self._ledger.joined()

    async def has_work(self) -> bool:
        return self._ledger.has_work()

    async def next_stage(self, incarnation: Incarnation, number: int) -> Answer:
        answer: Answer = Wait()

        def is_answered() -> bool:
            nonlocal answer
            answer = self._ledger.next_stage(incarnation, number)
            return not isinstance(answer, Wait)

        await self._until(WORK, is_answered)
        self._tell()
        return answer

    async def snapshot(self, key: str) -> Any:
        """The references of a snapshot in the object store, as a list; None if it left."""
        return self._ledger.snapshot(key)

    async def epoch_done(
        self,
        incarnation: Incarnation,
        key: str,
        history: Sequence[Mapping[str, float]],
        samples_per_second: float,
    ) -> bool:
        is_wanted = self._ledger.epoch_done(incarnation, key, history, samples_per_second)
        self._first_epoch.set()
        self._tell()
        return is_wanted

    async def finished(
        self, incarnation: Incarnation, key: str, snapshot: Any, metrics: Mapping[str, float]
    ) -> None:
        reach("ledger.before_finished")
        self._ledger.finished(incarnation, key, snapshot, metrics)
        self._tell()
        reach("ledger.after_finished")

    async def failed(self, incarnation: Incarnation, key: str, error: str) -> None:
        self._ledger.failed(incarnation, key, error)
        self._first_epoch.set()
        self._tell()

    async def mistake(self, incarnation: Incarnation, key: str, rank: int, error: str) -> bool:
        """Return whether all ranks met a mistake in this stage: then it failed, and they go on."""
        self._ledger.mistake(incarnation, key, rank, error)
        self._tell()
        await self._until(key, lambda: self._ledger.is_agreed(incarnation, key), AGREE_S)
        return self._ledger.is_agreed(incarnation, key)

    async def lost(self, incarnation: Incarnation, key: str, missing: str) -> None:
        self._ledger.lost(incarnation, key, missing)
        self._tell()

    async def elsewhere(self, incarnation: Incarnation, key: str) -> None:
        self._ledger.elsewhere(incarnation, key)
        self._tell()

    async def slot_lost(self, slot: int, reason: str, is_blamed: bool = True) -> int:
        num_joined = self._ledger.slot_lost(slot, reason, is_blamed=is_blamed)
        self._tell()
        return num_joined

    async def abandon(self, error: str) -> None:
        self._ledger.abandon(error)
        self._first_epoch.set()
        self._tell()

    # ---- what people see ----

    async def changes(self, ledger: str, version: int) -> Changes:
        """What is new since that version of that ledger."""
        return self._ledger.changes(version if ledger == self._ledger.identity else 0)

    # ---- time and news ----

    async def _tick(self) -> None:
        """Notice what says nothing: slots that are dead or hang, nodes that died."""
        loop = asyncio.get_running_loop()
        while True:
            slept_at = loop.time()
            await asyncio.sleep(TICK_S)
            if loop.time() - slept_at > LEASE_S / 2:
                continue  # this process was held up, and has yet to hear who lives
            try:
                await self._look_around()
                self._gauges.show(self._ledger)
            except Exception as error:  # a storage or Ray in trouble: the next look may see
                log.warning("the ledger could not look around: %s", error)
            self._tell()

    async def _look_around(self) -> None:
        self._ledger.dead_nodes = await asyncio.to_thread(_dead_nodes)
        for slot in self._ledger.expire():
            # Its workers may hang, or wait for a node for ever: without their resources they end,
            # and the slot starts others.
            await asyncio.to_thread(remove_groups, self._tags[slot])
        waiting = self._ledger.waits_elsewhere()
        self._tell_found(await asyncio.to_thread(self._finished, waiting))

    def _finished(self, keys: Collection[str]) -> dict[str, Manifest]:
        manifests = read_manifests(self._storage, keys)
        return {key: manifest for key, manifest in manifests.items() if manifest is not None}

    def _tell_found(self, manifests: Mapping[str, Manifest]) -> None:
        for key, manifest in manifests.items():
            self._ledger.found(key, manifest.history, manifest.records[-1].measured)
        # A finished trial is not to run what led to it, if that was deleted since.
        for record in (record for manifest in manifests.values() for record in manifest.records):
            if self._ledger.knows(record.key):
                self._ledger.found(record.key, (), record.measured)

    def _tell(self) -> None:
        """Wake who waits for a stage that has changed, and a slot if there is work or none ever.

        One slot alone: once answered, it wakes the next, and none comes for work that is taken.
        """
        changes = self._ledger.changes(self._told)
        self._told = changes.version
        for key in changes.stages:
            self._wake(key)
        if self._ledger.has_ready():
            self._wake(WORK, most=1)

    def _wake(self, topic: str, most: int | None = None) -> None:
        waiting = self._waiting.get(topic, {})
        for future in list(islice(waiting, most)):
            del waiting[future]
            if not future.done():
                future.set_result(None)
        if not waiting:
            self._waiting.pop(topic, None)

    async def _until(
        self, topic: str, condition: Callable[[], bool], limit_s: float | None = None
    ) -> None:
        """Returns when the condition holds; it is looked at when there is news of the topic."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (POLL_S if limit_s is None else limit_s)
        while not condition() and loop.time() < deadline:
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(topic, {})[future] = None
            try:
                await asyncio.wait_for(future, deadline - loop.time())
            except (asyncio.TimeoutError, TimeoutError):
                self._waiting.get(topic, {}).pop(future, None)


def _dead_nodes() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])
