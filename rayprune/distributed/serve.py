"""What each rank of a slot does: ask the ledger for a stage, run it, hand over the snapshot."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch

from rayprune.distributed.ledger import Run, Stop, Wait
from rayprune.results.stages import LostSnapshotError, load_content
from rayprune.snapshot import Snapshot, decode
from rayprune.training.run import failure_message, run_stage
from rayprune.training.stage import EpochReport
from rayprune.training.worker import Worker, broadcast, gather, training_process

log = logging.getLogger(__name__)


def serve(slot: int, *, ledger: Any, storage: str, threads: int) -> None:
    """Run stages until the ledger says stop; a rank calls it inside a Ray Train run."""
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    with training_process(threads):
        _serve(slot, worker, ledger, storage)


def _serve(slot: int, worker: Worker, ledger: Any, storage: str) -> None:
    joined = ray.get(ledger.join.remote(slot)) if worker.is_first else None
    incarnation: int = broadcast(joined, worker)
    held: Snapshot | None = None
    number = 0
    while True:
        answer = ray.get(ledger.next_stage.remote(slot, incarnation, number))
        if isinstance(answer, Stop):
            return
        if isinstance(answer, Wait):
            continue
        number += 1
        try:
            held = _run(answer, held, worker, slot, ledger, storage)
        except LostSnapshotError as error:
            if worker.is_first:
                ray.get(ledger.lost.remote(slot, answer.stage.key, error.key))
            held = None
        except Exception as error:
            # Every rank meets a user's mistake alike; anything else may have left the ranks in
            # different places or a GPU unusable, and only new processes are sound again.
            ray.get(ledger.failed.remote(slot, answer.stage.key, failure_message(error)))
            held = None
            may_be_broken = worker.world_size > 1 or worker.device.type == "cuda"
            if may_be_broken and not isinstance(error, ValueError):
                raise


def _run(
    answer: Run, held: Snapshot | None, worker: Worker, slot: int, ledger: Any, storage: str
) -> Snapshot | None:
    """Run what the ledger answered; return the snapshot, or None if it is no longer wanted."""
    stage = answer.stage

    def on_epoch(report: EpochReport) -> bool:
        return ray.get(
            ledger.epoch_done.remote(
                slot, stage.key, report.epochs_done, report.metrics, report.images_per_second
            )
        )

    inputs = _inputs(answer, held, worker, storage)
    finished = run_stage(answer.experiment, stage, inputs, worker, storage, on_epoch=on_epoch)
    if finished is None:
        return None
    snapshot, content = finished
    if worker.is_first:
        # The slot's rank 0 owns the object, and lives as long as the study. A ref alone would be
        # fetched on the way; in a list it stays a ref.
        ref = ray.put(np.frombuffer(content, dtype=np.uint8))
        metrics = snapshot.records[-1].metrics
        ray.get(ledger.finished.remote(slot, stage.key, [ref], metrics))
    return snapshot


def _inputs(
    answer: Run, held: Snapshot | None, worker: Worker, storage: str
) -> dict[str, Snapshot]:
    """The snapshots that the stage needs.

    Raises ``LostSnapshotError`` on every rank if one of them cannot get one.
    """
    found: dict[str, Snapshot] = {}
    lost = ""
    for key in answer.stage.inputs.keys:
        try:
            found[key] = _snapshot(key, answer.inputs.get(key), held, storage)
        except LostSnapshotError:
            lost = key
            break
    missing = next(filter(None, gather(lost, worker)), None)
    if missing is not None:
        raise LostSnapshotError(missing)
    return found


def _snapshot(key: str, stored: Any, held: Snapshot | None, storage: str) -> Snapshot:
    """In hand, in the object store, or on disk."""
    if held is not None and held.records[-1].key == key:
        return held
    if stored is not None:
        try:
            return decode(ray.get(stored[0]))
        except ray.exceptions.RayError:
            log.warning("stage %s left the object store, its durable copy is read", key)
    return decode(load_content(storage, key))
