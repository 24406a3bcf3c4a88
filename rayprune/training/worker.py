"""A process of a data-parallel group: its rank, its device, and the few things ranks say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")
LAST_COLLECTIVE_S = 0.3
ALONE_S = 30.0  # after which an error that the other ranks have not met is one rank's alone


@dataclass(frozen=True)
class Worker:
    """One rank of `world_size`, computing on `device`."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (a value)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """What it computes on: "cpu, 2 threads", or what the GPU is called."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"{self.device.type}, {threads} thread{'' if threads == 1 else 's'}"


@contextmanager
def local_worker() -> Iterator[Worker]:
    """The worker of a plain process, or of one of ``torchrun``'s, with its process group."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    on_gpu = torch.cuda.is_available()
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if on_gpu
        else torch.device("cpu")
    )
    if on_gpu:
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Worker(device=device)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Worker(rank, world_size, device)
    finally:
        leave_process_group()


def leave_process_group() -> None:
    """End this process's part in the group.

    A thread of gloo drops the last collective's tensors a moment after that has returned. If the
    interpreter ended meanwhile it would abort the process, all its work done: so it gets the time.
    """
    time.sleep(LAST_COLLECTIVE_S)
    dist.destroy_process_group()


def all_reduce_(tensor: Tensor, worker: Worker) -> Tensor:
    """The sum over all ranks, in place."""
    if worker.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: Value | None, worker: Worker) -> Value:
    """Rank 0's value, on every rank; the others pass None."""
    if worker.world_size > 1:
        box = [value]
        dist.broadcast_object_list(box, src=0, device=worker.device)
        value = box[0]
    assert value is not None
    return value


def met_by_all(what: str, worker: Worker, timeout_s: float = ALONE_S) -> bool:
    """Whether every rank comes here, within this time.

    Asked through the group's store: a rank that met no error is in some collective, which would
    wait for this one.
    """
    if worker.world_size == 1:
        return True
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{what}/{worker.rank}", "met")
    try:
        store.wait([f"{what}/{rank}" for rank in range(worker.world_size)], timedelta(0, timeout_s))
    except RuntimeError:  # what a store raises when the time is over
        return False
    return True


def gather(value: Value, worker: Worker) -> list[Value]:
    """Every rank's value, in their order, on every rank."""
    if worker.world_size == 1:
        return [value]
    values: list[Value | None] = [None] * worker.world_size
    dist.all_gather_object(values, value)
    return cast(list[Value], values)


def check_equal(text: str, what: str, worker: Worker) -> None:
    """An internal check that all ranks hold the same; they do by construction."""
    texts = gather(text, worker)
    assert len(set(texts)) == 1, f"ranks disagree on {what}: {texts}"


def average_buffers_(model: nn.Module, worker: Worker) -> None:
    """Batch-norm statistics become their mean over all ranks, each of which saw its own images."""
    if worker.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= worker.world_size


@contextmanager
def training_process(threads: int) -> Iterator[None]:
    """Settings of a process that trains, as they were before afterwards.

    Its threads on a CPU, repeatable kernels on a GPU, and a random state of its own.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(threads)
    # A stage that goes on after an interruption must give the bits of one that was not.
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
