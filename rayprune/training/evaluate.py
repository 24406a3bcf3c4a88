"""Measuring a model on a split, and batch-norm statistics estimated anew."""

from __future__ import annotations

import torch
from torch import nn

from rayprune.data import Split
from rayprune.training.task import Task
from rayprune.training.worker import Worker, all_reduce_, average_buffers_

RECALIBRATION_BATCHES = 100


def evaluate(
    model: nn.Module, split: Split, task: Task, batch_size: int, worker: Worker
) -> dict[str, float]:
    """Metrics over a whole split; every rank measures its share and all get the same numbers."""
    mine = torch.arange(worker.rank, len(split), worker.world_size)
    counts: torch.Tensor | None = None
    training = model.training
    model.eval()
    with torch.inference_mode():
        for inputs, targets in split.batches(mine.split(batch_size), device=worker.device):
            batch = task.count(model(laid_out(inputs)), targets)
            counts = batch if counts is None else counts + batch
    model.train(training)
    assert counts is not None, "every rank has an image of each split"
    return task.metrics(all_reduce_(counts.clone(), worker).cpu())


def recalibrate_batch_norm_(
    model: nn.Module, split: Split, batch_size: int, worker: Worker
) -> None:
    """Estimate running means and variances anew, over up to 100 batches of training images.

    They stay: retraining would replace them, and a model that is not retrained is shipped with
    them. Images come in their stored order and are not augmented.
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
        for inputs, _ in split.batches(batches, device=worker.device):
            model(laid_out(inputs))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_buffers_(model, worker)


def laid_out(inputs: torch.Tensor) -> torch.Tensor:
    """Images in channels_last order, as the model's weights are."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
