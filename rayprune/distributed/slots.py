"""Slots: long-lived Ray Train worker groups that run stage after stage.

Starting a Ray Train run costs seconds, so it is paid once a slot and not once a trial.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import ray
import ray.train
import ray.train.torch

from rayprune.config import Scaling

START_S = 30.0  # how long all else lets the first slot start alone
# How long slots may take to end before Ray is shut down around them, which ends the process with
# an error: a busy machine gets the time.
END_S = 60.0


class Slots:
    """The slots of a study: a thread holds the Ray Train run of each."""

    def __init__(
        self, ledger: Any, count: int, scaling: Scaling, storage: str, ray_folder: str
    ) -> None:
        self._ledger, self._scaling = ledger, scaling
        self._storage, self._ray_folder = storage, ray_folder
        self._alive, self._lock = count, threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), daemon=True) for slot in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_first(self) -> None:
        """Let the first slot start alone: processes that start at once slow each other down."""
        ray.wait([self._ledger.first_epoch_done.remote()], timeout=START_S)

    def join(self) -> None:
        """Wait for the slots to end; Ray's shutdown ends those that hang."""
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, slot: int) -> None:
        error = None
        if slot > 0:
            self.wait_for_first()
        try:
            if ray.get(self._ledger.has_work.remote()):
                _fit(slot, self._ledger, self._scaling, self._storage, self._ray_folder)
        except Exception as failure:  # whatever ended it, the trials must hear of it
            error = f"slot {slot} ended: {failure}"
        with self._lock:
            self._alive -= 1
            is_last = self._alive == 0
        self._ledger.slot_ended.remote(slot, error, is_last)


def _fit(slot: int, ledger: Any, scaling: Scaling, storage: str, ray_folder: str) -> None:
    """Serve the ledger until it says stop; returns then. Raises what Ray Train raises."""
    trainer = ray.train.torch.TorchTrainer(
        _train_function,
        train_loop_config={
            "slot": slot,
            "ledger": ledger,
            "storage": storage,
            "threads": scaling.cpus_per_worker,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": scaling.cpus_per_worker,
                **({"GPU": scaling.gpus_per_worker} if scaling.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"slot-{slot}",
            storage_path=ray_folder,
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
        ),
    )
    trainer.fit()


def _train_function(config: dict[str, Any]) -> None:
    # Ray Train's controller loads this module too: only the workers need torchvision and the rest.
    from rayprune.distributed.serve import serve

    serve(**config)
