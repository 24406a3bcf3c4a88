"""Slots: long-lived Ray Train worker groups that run stage after stage.

Starting a Ray Train run costs seconds, so it is paid once a slot and not once a trial. The runs'
controllers live in actors, one on each node, beside their workers: the driver can always end, and
the head carries none of them.
"""

from __future__ import annotations

import os
import time
from typing import Any

import ray
import ray.train

from rayprune.config import Scaling
from rayprune.distributed.groups import remove_groups
from rayprune.distributed.place import Place
from rayprune.distributed.trainer import OwnGroup, SlotTrainer
from rayprune.results.faults import reach
from rayprune.results.storage import StorageError

MAX_STARTS = 4  # in a row that never came to work: then the slot cannot start
ROOM_S = 3600.0  # how long a run waits for nodes that can hold its workers, before another does
MAX_SLOTS = 256  # on one node
# Ray Train's own watch for preempted nodes is a process for each run: the ledger sees dead nodes.
TRAIN_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(ROOM_S),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class MetAloneError(Exception):
    """What one rank met and the others did not; the message says all."""


class SlotsOfNode:
    """Holds the Ray Train runs of a node's slots, and starts another whenever one dies."""

    def __init__(self) -> None:
        for name, value in TRAIN_SETTINGS.items():
            os.environ.setdefault(name, value)

    def run(self, slot: int, tag: int, place: Place, scaling: Scaling) -> None:
        """Keep the slot's workers at work until no work remains for it.

        Raises what its workers failed with where they cannot be started again and again.
        """
        if place.has_dashboard:
            os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
        ledger, starts, num_joined = place.ledger, 0, 0
        while ray.get(ledger.has_work.remote()):
            remove_groups(tag)
            reach("slot.before_fit", f"slot {slot}")
            try:
                _fit(slot, tag, place, scaling)
                return
            except Exception as error:  # a worker, a node, Ray's controller: all can be replaced
                reason = _reason(error)
                before, num_joined = num_joined, ray.get(ledger.slot_lost.remote(slot, reason))
                has_begun = num_joined != before or _waited_for_room(error)
                starts = 0 if has_begun else starts + 1
                if starts == MAX_STARTS:
                    raise RuntimeError(f"no workers could be started: {reason}") from error
                time.sleep(starts)


def resources_of(scaling: Scaling) -> dict[str, float]:
    """What a worker of a slot asks for."""
    resources: dict[str, float] = {"CPU": scaling.cpus_per_worker}
    if scaling.gpus_per_worker:
        resources["GPU"] = scaling.gpus_per_worker
    if scaling.accelerator_type:  # as Ray Train does it
        resources[f"accelerator_type:{scaling.accelerator_type}"] = 0.001
    return resources


def _fit(slot: int, tag: int, place: Place, scaling: Scaling) -> None:
    """Serve the ledger until it says stop. Raises what Ray Train raises when the workers die."""
    # Train V2's, of which type checkers do not know.
    failing: Any = ray.train.FailureConfig
    scaled: Any = ray.train.ScalingConfig
    config = {"slot": slot, "tag": tag, "place": place, "threads": scaling.cpus_per_worker}
    trainer = SlotTrainer(
        _train_function,
        train_loop_config=config,
        backend_config=OwnGroup(),
        scaling_config=scaled(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker={**resources_of(scaling), "memory": tag},
            label_selector=scaling.labels or None,
        ),
        run_config=ray.train.RunConfig(
            name=f"{place.study}-slot-{slot}",
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
