"""The actor that shares one ledger with a whole cluster; every decision is the ledger's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from rayprune.config import Experiment
from rayprune.distributed.ledger import Answer, Ledger, Wait
from rayprune.plan import Stage
from rayprune.results.outcome import Status
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.stages import finished_records

POLL_S = 5.0  # how long a question to the ledger is held open before it is asked again
# Ray would put what takes no CPU on workers, but those come and go: ledger and trials stay here.
ON_HEAD = {"node:__internal_head__": 0.001}


@ray.remote(num_cpus=0, resources=ON_HEAD)
class LedgerActor:
    """A ledger that is asked from everywhere, and wakes who waits for news."""

    def __init__(self, storage: str, num_parallel: int) -> None:
        self._ledger = Ledger(num_parallel)
        self._storage = storage
        self._changed = asyncio.Condition()

    async def submit(self, trial: str, experiment: Experiment, plan: Sequence[Stage]) -> None:
        new = [stage.key for stage in plan if not self._ledger.knows(stage.key)]
        self._ledger.submit(trial, experiment, plan)
        for key in new:
            records = finished_records(self._storage, key)
            if records is not None:
                self._ledger.found(key, records[-1].metrics)
        await self._tell()

    async def withdraw(self, trial: str, status: Status, reason: str) -> None:
        self._ledger.withdraw(trial, status, reason)
        await self._tell()

    async def close(self) -> None:
        """Tune has ended and no trial waits any more: slots end, the busy ones after an epoch."""
        self._ledger.withdraw_all()
        self._ledger.close()
        await self._tell()

    async def wait_for(self, key: str, epochs_seen: int) -> StageProgress:
        """Progress of a stage once it is over or past `epochs_seen`, or after a while."""

        def has_news() -> bool:
            state = self._ledger.state(key)
            return state.status in ("done", "failed") or state.epochs_done > epochs_seen

        await self._until(has_news)
        return self._ledger.state(key)

    async def join(self, slot: int) -> int:
        incarnation = self._ledger.join(slot)
        await self._tell()
        return incarnation

    async def first_epoch_done(self) -> None:
        """Returns when a slot is at work."""
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

    async def lost(self, slot: int, key: str, missing: str) -> None:
        self._ledger.lost(slot, key, missing)
        await self._tell()

    async def slot_ended(self, slot: int, error: str | None, is_last: bool) -> None:
        """A slot is gone for good; when it was the last one, what is left cannot be done."""
        self._ledger.slot_lost(slot)
        if is_last and error is not None:
            self._ledger.abandon(error)
        await self._tell()

    async def progress(self) -> StudyProgress:
        return self._ledger.progress()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(condition), POLL_S)
            except (asyncio.TimeoutError, TimeoutError):
                return
