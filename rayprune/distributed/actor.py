"""Ray, started or joined; how many slots it holds; and the actor that shares one ledger."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rayprune.config import Experiment, Scaling
from rayprune.distributed.ledger import Answer, Ledger, StageState, Wait
from rayprune.plan import Stage
from rayprune.results.stages import finished_records, load_snapshot

POLL_S = 5.0  # how long a question to the ledger is held open before it is asked again
# Ray would put what takes no CPU on workers, but those come and go: ledger and trials stay here.
ON_HEAD = {"node:__internal_head__": 0.001}


def connect() -> bool:
    """Join the cluster of RAY_ADDRESS, or start Ray here; True if it was started here."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the one in which verbose=0 is silent
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS")
    ray.init(
        address=address or "local",  # not some cluster that was left running on this machine
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=None if address else False,
    )
    return address is None


def num_slots(scaling: Scaling, num_trials: int) -> int:
    """Slots that the cluster holds now, at least one, and no more than there are trials."""
    if scaling.slots is not None:
        return min(scaling.slots, num_trials)
    resources = ray.cluster_resources()
    fits = [resources.get("CPU", 0) / (scaling.cpus_per_worker * scaling.workers)]
    if scaling.gpus_per_worker:
        fits.append(resources.get("GPU", 0) / (scaling.gpus_per_worker * scaling.workers))
    return max(1, min(int(min(fits)), num_trials))


@dataclass(frozen=True)
class View:
    """What people are shown while a study runs."""

    states: Mapping[str, StageState]
    running: Mapping[int, Stage]
    executed_epochs: int


@ray.remote(num_cpus=0, resources=ON_HEAD)
class LedgerActor:
    """A ledger that a whole cluster asks; every decision is the ledger's."""

    def __init__(self, storage: str) -> None:
        self._ledger = Ledger()
        self._storage = storage
        self._changed = asyncio.Condition()

    async def submit(self, trial: str, experiment: Experiment, plan: Sequence[Stage]) -> None:
        known = self._ledger.states()
        self._ledger.submit(trial, experiment, plan)
        for stage in plan:
            if stage.key not in known and load_snapshot(self._storage, stage.key) is not None:
                records = finished_records(self._storage, stage.key)
                assert records is not None
                self._ledger.found(stage.key, [], records[-1].metrics)
        await self._tell()

    async def withdraw(self, trial: str) -> None:
        self._ledger.withdraw(trial)
        await self._tell()

    async def close(self) -> None:
        self._ledger.close()
        await self._tell()

    async def wait_for(self, key: str, epochs_seen: int) -> StageState:
        """A stage's state once it is over or past `epochs_seen`, or as it is after a while."""

        def news() -> bool:
            state = self._ledger.state(key)
            return state.status in ("done", "failed") or state.epochs_done > epochs_seen

        await self._until(news)
        return self._ledger.state(key)

    async def join(self, slot: int) -> int:
        incarnation = self._ledger.join(slot)
        await self._tell()
        return incarnation

    async def first_epoch_done(self) -> None:
        """Comes back when a slot is at work."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ledger.executed_epochs > 0)

    async def has_work(self) -> bool:
        return self._ledger.has_work()

    async def next_stage(self, slot: int, incarnation: int, number: int) -> Answer:
        await self._until(
            lambda: not isinstance(self._ledger.next_stage(slot, incarnation, number), Wait)
        )
        return self._ledger.next_stage(slot, incarnation, number)

    async def epoch_done(
        self, slot: int, key: str, epochs_done: int, metrics: Mapping[str, float], speed: float
    ) -> bool:
        wanted = self._ledger.epoch_done(slot, key, epochs_done, metrics, speed)
        await self._tell()
        return wanted

    async def finished(
        self, slot: int, key: str, snapshot: Any, metrics: Mapping[str, float]
    ) -> None:
        self._ledger.finished(slot, key, snapshot, metrics)
        await self._tell()

    async def failed(self, slot: int, key: str, error: str) -> None:
        self._ledger.failed(slot, key, error)
        await self._tell()

    async def slot_ended(self, slot: int, error: str | None, is_last: bool) -> None:
        """A slot is gone for good; when it was the last one, what is left cannot be done."""
        self._ledger.slot_lost(slot)
        if is_last and error is not None:
            self._ledger.abandon(error)
        await self._tell()

    async def view(self) -> View:
        states = {
            key: StageState(s.status, s.epochs_done, s.metrics, s.images_per_second, s.error)
            for key, s in self._ledger.states().items()
        }
        return View(states, self._ledger.running(), self._ledger.executed_epochs)

    async def executed_by(self) -> dict[str, str]:
        return self._ledger.executed_by()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, condition: Any) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(condition), POLL_S)
            except (asyncio.TimeoutError, TimeoutError):
                return
