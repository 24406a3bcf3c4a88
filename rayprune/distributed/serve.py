"""What each rank of a slot does: run the stages that rank 0 hears of, hand over the snapshots.

Rank 0 alone asks, reads and reports, and the others hear it from rank 0, so ranks cannot drift
apart. An accident ends the workers: fresh ones go on from the stage's last epoch.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
import torch.distributed as dist

from rayprune.config import ConfigError
from rayprune.distributed.ledger import Answer, Incarnation, Rejoin, Run, Stop, Wait
from rayprune.distributed.place import Place
from rayprune.distributed.shared import sees
from rayprune.distributed.slots import MetAloneError
from rayprune.results.faults import reach
from rayprune.results.stages import LostSnapshotError, load_content
from rayprune.snapshot import Snapshot, decode
from rayprune.training.run import StageElsewhereError, failure_message, run_stage
from rayprune.training.stage import EpochReport
from rayprune.training.worker import (
    Worker,
    broadcast,
    gather,
    leave_process_group,
    training_process,
)

BEAT_S = 3.0
REPORT_S = 5.0  # least time between two reports to Ray Train
# What is no user's mistake, whatever the stage: a disk, a store, Ray, a GPU, the network.
ACCIDENTS = (OSError, MemoryError, ray.exceptions.RayError, torch.AcceleratorError, dist.DistError)
# The same, said by a plain RuntimeError; the last is a process that read images and was killed.
ACCIDENT_WORDS = ("gloo", "NCCL", "DataLoader worker (pid")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Inputs:
    """What rank 0 found before a stage, for all ranks."""

    contents: dict[str, bytes]
    """Key -> encoded snapshot, of those that the ranks do not hold already."""
    lost: str | None = None
    """Key of an input that is gone from the storage."""


def serve(slot: int, tag: int, place: Place, threads: int) -> None:
    """Run stages until the ledger says stop; every rank calls it inside a Ray Train run."""
    with _train_worker() as worker, training_process(threads):
        if _all_see(place, worker):
            with _pulse(place.ledger) as pulse:
                _serve(slot, tag, worker, place, pulse, _TrainReports(slot, worker))


@contextmanager
def _train_worker() -> Iterator[Worker]:
    """This process's rank of the Ray Train run, in a process group with the others."""
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if worker.world_size == 1:
        yield worker
        return
    address = _free_address() if worker.is_first else None
    url = f"tcp://{ray.train.collective.broadcast_from_rank_zero(address)}"
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, url, rank=worker.rank, world_size=worker.world_size)
    yield worker  # where it fails the process ends, and the group with it
    leave_process_group()


def _free_address() -> str:
    """Host and port at which the ranks can meet rank 0."""
    host = ray.util.get_node_ip_address()
    is_v6 = ":" in host
    with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return f"[{host}]:{port}" if is_v6 else f"{host}:{port}"


def _serve(
    slot: int, tag: int, worker: Worker, place: Place, pulse: _Pulse, reports: _TrainReports
) -> None:
    nodes = gather(ray.get_runtime_context().get_node_id(), worker)
    snapshot: Snapshot | None = None
    number = 0
    while True:
        said: tuple[Incarnation, Answer] | None = None
        if worker.is_first:
            if pulse.incarnation is None:
                joining = place.ledger.join.remote(slot, tag, worker.world_size, nodes)
                pulse.incarnation = ray.get(joining)
            asking = place.ledger.next_stage.remote(pulse.incarnation, number)
            said = pulse.incarnation, ray.get(asking)
        incarnation, answer = broadcast(said, worker)
        if isinstance(answer, Stop):
            return
        if isinstance(answer, Wait):
            continue
        number += 1
        if isinstance(answer, Rejoin):
            pulse.incarnation = None
            continue
        reach("serve.before_stage", _name(worker))
        hear = partial(reports.epoch_done, answer)
        snapshot = _attempt(answer, snapshot, worker, incarnation, place, hear)


def _attempt(
    run: Run,
    snapshot: Snapshot | None,
    worker: Worker,
    incarnation: Incarnation,
    place: Place,
    hear: Callable[[EpochReport], None],
) -> Snapshot | None:
    """Run a stage; return its snapshot, or None where it was not done. Raises accidents."""
    key, ledger = run.stage.key, place.ledger
    try:
        return _run(run, snapshot, worker, incarnation, place, hear)
    except LostSnapshotError as error:
        if worker.is_first:
            ray.get(ledger.lost.remote(incarnation, key, error.key))
        return None
    except StageElsewhereError:
        if worker.is_first:
            ray.get(ledger.elsewhere.remote(incarnation, key))
        return None
    except torch.OutOfMemoryError as error:
        ray.get(ledger.failed.remote(incarnation, key, _out_of_memory(error, run, worker)))
        if worker.world_size > 1:
            raise  # the other ranks wait for this one
        torch.cuda.empty_cache()
        return None
    except Exception as error:
        if _is_accident(error):
            raise
        message = failure_message(error)
        # A mistake that all ranks meet is the user's; what one meets alone is an accident.
        if not ray.get(ledger.mistake.remote(incarnation, key, worker.rank, message)):
            raise MetAloneError(message) from error
        is_sound = worker.world_size == 1 and worker.device.type == "cpu"
        if not is_sound and not isinstance(error, ValueError):
            raise
        return None


def _run(
    run: Run,
    snapshot: Snapshot | None,
    worker: Worker,
    incarnation: Incarnation,
    place: Place,
    hear: Callable[[EpochReport], None],
) -> Snapshot | None:
    stage, ledger, storage = run.stage, place.ledger, place.storage
    log.info("trial %s: %s, key %s", run.trial, stage.title, stage.key)  # in Ray's dashboard

    def on_epoch(report: EpochReport) -> bool:
        if mistake := place.goals.mistake_in(report.metrics):  # as every rank measures it
            raise ConfigError(mistake)
        is_wanted = True
        if worker.is_first:
            reach("serve.before_epoch_done")
            told = ledger.epoch_done.remote(
                incarnation, stage.key, report.history, report.samples_per_second
            )
            is_wanted = ray.get(told)
        hear(report)
        return is_wanted

    inputs = broadcast(_inputs(run, snapshot, place) if worker.is_first else None, worker)
    if inputs.lost is not None:
        raise LostSnapshotError(inputs.lost)
    snapshots = {key: decode(content) for key, content in inputs.contents.items()}
    if snapshot is not None:
        snapshots.setdefault(snapshot.records[-1].key, snapshot)
    finished = run_stage(
        run.experiment, stage, snapshots, worker, storage, owner=place.folder, on_epoch=on_epoch
    )
    if finished is None:
        return None
    done, content = finished
    if worker.is_first:
        reach("serve.before_finished")
        measured = done.records[-1].measured
        ray.get(ledger.finished.remote(incarnation, stage.key, _put(content), measured))
        reach("serve.after_finished")
    return done


class _TrainReports:
    """What Ray Train hears of a slot's stages.

    Ray Train takes one report each time that its controller looks, and a rank waits until the last
    one was taken: so epochs that follow fast are left out.
    """

    def __init__(self, slot: int, worker: Worker) -> None:
        self._slot, self._worker, self._reported_at = slot, worker, 0.0

    def epoch_done(self, run: Run, report: EpochReport) -> None:
        """Report an epoch, if it is time; every rank calls it."""
        is_due = time.monotonic() - self._reported_at >= REPORT_S
        if broadcast(is_due if self._worker.is_first else None, self._worker):
            self._reported_at = time.monotonic()
            names = {"slot": self._slot, "trial": run.trial, "stage": run.stage.title}
            epoch = run.stage.first_epoch + report.epochs_done
            ray.train.report({**names, "epoch": epoch, **report.metrics})


def _inputs(run: Run, snapshot: Snapshot | None, place: Place) -> _Inputs:
    """What the stage starts from: in hand, in the object store, or in the storage."""
    contents: dict[str, bytes] = {}
    in_hand = None if snapshot is None else snapshot.records[-1].key
    for key in run.stage.inputs.keys:
        try:
            if key != in_hand:
                contents[key] = _stored(key, place.ledger) or load_content(place.storage, key)
        except LostSnapshotError:
            return _Inputs({}, lost=key)
    return _Inputs(contents)


def _stored(key: str, ledger: Any) -> bytes | None:
    """A snapshot from the object store, if it is there."""
    references = ray.get(ledger.snapshot.remote(key))
    if references is None:
        return None
    try:
        return ray.get(references[0]).tobytes()
    except ray.exceptions.RayError:
        log.warning("stage %s left the object store, its durable copy is read", key)
        return None


def _put(content: bytes) -> list[Any] | None:
    """The object store's reference to a snapshot, in a list, where it stays a reference.

    None where there is no room for it: the storage has it.
    """
    try:
        return [ray.put(np.frombuffer(content, dtype=np.uint8))]
    except ray.exceptions.RayError as error:
        log.warning("a snapshot did not fit into the object store: %s", error)
        return None


class _Pulse:
    """The incarnation whose ledger hears that its workers live."""

    def __init__(self) -> None:
        self.incarnation: Incarnation | None = None


@contextmanager
def _pulse(ledger: Any) -> Iterator[_Pulse]:
    """While open, a thread keeps the lease of the incarnation that it is told of.

    A process that was given up ends at once, wherever it hangs.
    """
    pulse, over = _Pulse(), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            incarnation = pulse.incarnation
            try:
                lives = incarnation is None or ray.get(ledger.beat.remote(incarnation))
            except ray.exceptions.RayError:
                return  # the study is gone, and Ray ends this process
            if not lives and pulse.incarnation == incarnation and not over.is_set():
                log.error("the ledger gave up these workers: fresh ones take over")
                os._exit(1)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield pulse
    finally:
        over.set()


def _all_see(place: Place, worker: Worker) -> bool:
    """Whether every node sees what the driver wrote; if not, the study says so and ends."""
    address = ray.util.get_node_ip_address()
    blind = gather(None if sees(place.folder, place.token) else address, worker)
    nodes = " and ".join(dict.fromkeys(filter(None, blind)))
    if nodes and worker.is_first:
        error = (
            f"storage {place.storage} is not shared: node {nodes} does not see what the driver "
            f"wrote there. Write storage: a bucket (s3://, gs://) or a folder that all nodes share"
        )
        ray.get(place.ledger.abandon.remote(error))
    return not nodes


def _is_accident(error: Exception) -> bool:
    is_said = any(words in str(error) for words in ACCIDENT_WORDS)
    return isinstance(error, ACCIDENTS) or (isinstance(error, RuntimeError) and is_said)


def _out_of_memory(error: Exception, run: Run, worker: Worker) -> str:
    batch = run.experiment.batch_size
    reason = str(error).split(". ")[0]
    return (
        f"the GPU has not enough memory: {reason}. Lower experiment.batch_size, now {batch}, "
        f"write experiment.precision: bfloat16, raise scaling.workers, now {worker.world_size}, or "
        f"let fewer stages share a GPU (scaling.gpus_per_worker: 1)"
    )


def _name(worker: Worker) -> str:
    return f"rank {worker.rank}"
