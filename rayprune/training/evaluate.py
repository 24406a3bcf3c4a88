"""Measuring a model on a split, and batch-norm statistics estimated anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.data import Split
from rayprune.training.task import Task
from rayprune.training.worker import Worker, all_reduce_, average_buffers_, gather

RECALIBRATION_BATCHES = 100


def evaluate(
    model: nn.Module,
    split: Split,
    task: Task,
    batch_size: int,
    worker: Worker,
    *,
    may_be_nan: bool = True,
) -> dict[str, float]:
    """Metrics over a whole split; every rank measures its share and all get the same numbers.

    Raises a ``ValueError`` that names the task where its counts or metrics are none, or not a
    number although they may not be.
    """
    mine = torch.arange(worker.rank, len(split), worker.world_size)
    counts: Tensor | None = None
    training = model.training
    model.eval()
    # Not inference_mode: what a network keeps of a forward pass may be wanted while training.
    with torch.no_grad():
        for inputs, targets in split.batches(mine.split(batch_size), device=worker.device):
            output = task.forward(model, laid_out(inputs), targets)
            batch = _counts(task, output, targets, counts)
            counts = batch if counts is None else counts + batch
    model.train(training)
    assert counts is not None, "every rank has a sample of each split"
    sizes = gather(len(counts), worker)
    if len(set(sizes)) > 1:
        raise ValueError(_other_number(task, *sorted(set(sizes))[:2]))
    return _metrics(task, all_reduce_(counts.clone(), worker).cpu(), may_be_nan)


def _counts(task: Task, output: Any, targets: Any, before: Tensor | None) -> Tensor:
    counts = task.count(output, targets)
    if not isinstance(counts, Tensor) or counts.ndim != 1 or not len(counts):
        got = tuple(counts.shape) if isinstance(counts, Tensor) else type(counts).__name__
        raise ValueError(
            f"{task.name}: count must return a tensor (k,) of numbers that add up over batches, "
            f"got {got}"
        )
    if before is not None and len(before) != len(counts):
        raise ValueError(_other_number(task, len(before), len(counts)))
    return counts.double()


def _other_number(task: Task, one: int, another: int) -> str:
    return (
        f"{task.name}: count must return equally many numbers for every batch, got {one} and "
        f"{another}"
    )


def _metrics(task: Task, counts: Tensor, may_be_nan: bool) -> dict[str, float]:
    found = task.metrics(counts)
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"{task.name}: metrics must return a dictionary of numbers by name, got {found!r:.80}"
        )
    try:
        metrics = {str(name): float(value) for name, value in found.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{task.name}: metrics must return numbers: {error}") from error
    nan = [name for name, value in metrics.items() if math.isnan(value)]
    if nan and not may_be_nan:
        raise ValueError(
            f"{task.name}: {', '.join(nan)} is not a number (nan). Return a number for every "
            "split, or inf where there is none"
        )
    return metrics


def recalibrate_batch_norm_(
    model: nn.Module, split: Split, task: Task, batch_size: int, worker: Worker
) -> None:
    """Estimate running means and variances anew, over up to 100 batches of training samples.

    They stay: retraining would replace them, and a model that is not retrained is shipped with
    them. They come in their stored order and are not augmented.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    mine = torch.arange(worker.rank, len(split), worker.world_size)
    whole = mine[: len(mine) // batch_size * batch_size] if len(mine) > batch_size else mine
    model.eval()  # no dropout: these are the statistics of the network that is shipped
    for norm in norms:
        norm.train()
    with torch.no_grad():
        batches = whole.split(batch_size)[:RECALIBRATION_BATCHES]
        for inputs, targets in split.batches(batches, device=worker.device):
            task.forward(model, laid_out(inputs), targets)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_buffers_(model, worker)


def laid_out(inputs: Any) -> Any:
    """Images in channels_last order, as the model's weights are; other inputs as they are."""
    is_batch = isinstance(inputs, Tensor) and inputs.ndim == 4
    return inputs.contiguous(memory_format=torch.channels_last) if is_batch else inputs
