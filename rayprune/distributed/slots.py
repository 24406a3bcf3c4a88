"""Slots: long-lived Ray Train worker groups that run stage after stage.

Starting a Ray Train run costs seconds, so it is paid once a slot and not once a trial. The runs
live in actors, so that the driver can always end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import ray

from rayprune.config import Scaling
from rayprune.distributed.groups import remove_groups
from rayprune.distributed.head import start
from rayprune.distributed.place import Place
from rayprune.results.faults import reach
from rayprune.results.storage import StorageError

FIRST_S = 30.0  # how long all else lets the first slot start alone
END_S = 60.0  # how long slots may take to end before they are killed
MAX_STARTS = 4  # in a row that never came to work: then the slot cannot start
ROOM_S = 3600.0  # how long a run waits for nodes that can hold its workers, before another does


class MetAloneError(Exception):
    """What one rank met and the others did not; the message says all."""


class SlotActor:
    """Holds the Ray Train run of one slot, and starts another whenever it dies.

    When its own process dies, it is started again and begins with a new run.
    """

    def run(self, slot: int, tag: int, place: Place, scaling: Scaling) -> None:
        """Keep the slot's workers at work until no work remains."""
        ledger = place.ledger
        if slot > 0:
            ray.wait([ledger.first_epoch_done.remote()], timeout=FIRST_S)
        # What an earlier process of this actor left behind is no fault of the stage.
        lost = ledger.slot_lost.remote(slot, "its slot was started again", is_blamed=False)
        num_joined, starts = ray.get(lost), 0
        while ray.get(ledger.has_work.remote()):
            remove_groups(tag)
            reach("slot.before_fit", f"slot {slot}")
            try:
                _fit(slot, tag, place, scaling)
                starts = 0
            except Exception as error:  # a worker, a node, Ray's controller: all can be replaced
                reason = _reason(error)
                before, num_joined = num_joined, ray.get(ledger.slot_lost.remote(slot, reason))
                has_begun = num_joined != before or _waited_for_room(error)
                starts = 0 if has_begun else starts + 1
                if starts == MAX_STARTS:
                    ray.get(ledger.give_up.remote(slot, f"no workers could be started: {reason}"))
                    return
                time.sleep(starts)


class Slots:
    """The slots of a study, as the driver sees them."""

    def __init__(self, tags: Sequence[int], place: Place, scaling: Scaling) -> None:
        self._ledger, self._tags = place.ledger, tags
        self._actors = [start(SlotActor) for _ in tags]
        self._runs = [
            actor.run.remote(slot, tag, place, scaling)
            for slot, (actor, tag) in enumerate(zip(self._actors, tags, strict=True))
        ]

    def wait_for_first(self) -> None:
        """Let the first slot start alone: processes that start at once slow each other down."""
        ray.wait([self._ledger.first_epoch_done.remote()], timeout=FIRST_S)

    def look(self) -> None:
        """Give up slots that ended by an error of their own: no trial is to wait for them."""
        ended, _ = ray.wait(self._runs, num_returns=len(self._runs), timeout=0)
        for slot, run in enumerate(self._runs):
            if run in ended:
                try:
                    ray.get(run)
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().split("\n")[-1].strip()  # where a traceback ends
                    self._ledger.give_up.remote(slot, f"slot {slot} ended: {reason}")

    def end(self) -> None:
        """Wait for the slots to end by themselves, then kill those that do not."""
        ray.wait(self._runs, num_returns=len(self._runs), timeout=END_S)
        self.kill()

    def kill(self) -> None:
        """End the slots at once; what they ran goes on from its last epoch some other time."""
        for actor, tag in zip(self._actors, self._tags, strict=True):
            ray.kill(actor)
            remove_groups(tag)


def _fit(slot: int, tag: int, place: Place, scaling: Scaling) -> None:
    """Serve the ledger until it says stop. Raises what Ray Train raises when the workers die."""
    import ray.train.torch  # seconds, and only this process needs it

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ROOM_S))
    failing: Any = ray.train.FailureConfig  # Train V2's, of which type checkers do not know
    gpus = {"GPU": scaling.gpus_per_worker} if scaling.gpus_per_worker else {}
    trainer = ray.train.torch.TorchTrainer(
        _train_function,
        train_loop_config={"slot": slot, "place": place, "threads": scaling.cpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker={"CPU": scaling.cpus_per_worker, "memory": tag, **gpus},
        ),
        run_config=ray.train.RunConfig(
            name=f"slot-{slot}",
            storage_path=place.ray_folder,
            # The run ends with its workers, and another is started: how often a stage may lose its
            # workers is the ledger's to say. Nor does it start anew those that died before all were
            # there: it would keep the resources of the dead, and wait for others for ever.
            failure_config=failing(max_failures=0, controller_failure_limit=0),
        ),
    )
    trainer.fit()


def _train_function(config: dict[str, Any]) -> None:
    # Ray Train's controller loads this module too: only the workers need torchvision and the rest.
    from rayprune.distributed.serve import serve

    serve(**config)


def _reason(error: Exception) -> str:
    """Why a Ray Train run ended, on one line."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    died = [rank for rank, failure in failures.items() if _is_death(failure)]
    if died:
        ranks = ", ".join(map(str, sorted(died)))
        return f"the process of rank {ranks} died (killed, out of memory, or its node is gone)"
    if failures:
        # A rank whose partner ended meets an error of the network: another says why.
        rank, failure = min(failures.items(), key=lambda item: (_is_network(item[1]), item[0]))
        return f"rank {rank}: {_said(failure)}"
    return _said(getattr(error, "controller_failure", error))


def _waited_for_room(error: Exception) -> bool:
    """Whether no node could hold the workers, which may change; not a start that failed."""
    failure = getattr(error, "controller_failure", None)
    return type(failure).__name__ == "WorkerGroupStartupTimeoutError"


def _is_death(failure: Exception) -> bool:
    """Whether the process is gone, as far as Ray Train's controller can see."""
    cause = getattr(failure, "health_check_failure", failure)
    return isinstance(cause, ray.exceptions.RayActorError | ray.exceptions.OutOfMemoryError)


def _is_network(failure: Exception) -> bool:
    return any(library in str(failure) for library in ("gloo", "NCCL"))


def _said(error: Exception) -> str:
    """The first line of what was raised, with its kind unless the line says all."""
    error = getattr(error, "_base_exc", error)  # as Ray Train hands over what a worker raised
    line = next((line.strip() for line in str(error).split("\n") if line.strip()), "")
    if isinstance(error, MetAloneError | StorageError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
