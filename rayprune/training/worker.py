"""A process of a data-parallel group: its rank, its device, and the few things ranks say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Worker:
    """One rank of `world_size`, computing on `device`."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (a value)

    @property
    def is_first(self) -> bool:
        return self.rank == 0


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
        dist.destroy_process_group()


def sum_(tensor: Tensor, worker: Worker) -> Tensor:
    """The sum over all ranks, in place."""
    if worker.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def from_first(value: Value | None, worker: Worker) -> Value:
    """Rank 0's value, on every rank; the others pass None."""
    if worker.world_size > 1:
        box = [value]
        dist.broadcast_object_list(box, src=0, device=worker.device)
        value = box[0]
    assert value is not None
    return value


def check_equal(text: str, what: str, worker: Worker) -> None:
    """An internal check that all ranks hold the same; they do by construction."""
    if worker.world_size > 1:
        texts: list[str | None] = [None] * worker.world_size
        dist.all_gather_object(texts, text)
        assert len(set(texts)) == 1, f"ranks disagree on {what}: {texts}"


def average_buffers_(model: nn.Module, worker: Worker) -> None:
    """Batch-norm statistics become their mean over all ranks, each of which saw its own images."""
    if worker.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= worker.world_size


def prepare_process(threads: int) -> None:
    """Settings of a process that trains: its threads on a CPU, repeatable kernels on a GPU."""
    torch.set_num_threads(threads)
    # A stage that goes on after an interruption must give the bits of one that was not.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
