"""The loss of a batch as a module, and that module behind DDP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rayprune.data import Split
from rayprune.training.task import Task
from rayprune.training.worker import Worker

PROBE_SAMPLES = 8


class Loss(nn.Module):
    """(inputs, targets) -> loss: the model and the task's loss in one module.

    DDP follows the graph of what its module returns. If that were the model's output, a part of it
    that the loss does not use would keep DDP waiting for gradients that never come.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, inputs: Any, targets: Any) -> Tensor:
        loss = self.task.loss(self.task.forward(self.model, inputs, targets), targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"{self.task.name}: loss must return one number as a tensor, got {got}"
            )
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"{self.task.name}: the loss has no gradient, so nothing can be learned from it. "
                "Compute it from the model's output with torch's operations"
            )
        return loss.reshape(())


def parallelized(loss: Loss, train: Split, worker: Worker, local_batch: int) -> nn.Module:
    """The loss behind DDP; itself on a single worker. `local_batch` is a rank's part of a batch."""
    if worker.world_size == 1:
        return loss
    return DistributedDataParallel(
        loss,
        device_ids=[worker.device] if worker.device.type == "cuda" else None,
        forward_sync_buffers=False,  # they are averaged once an epoch instead
        find_unused_parameters=(
            loss.task.find_unused_parameters
            or leaves_some_out(loss, train, min(local_batch, PROBE_SAMPLES))
        ),
    )


def leaves_some_out(loss: Loss, train: Split, num_samples: int) -> bool:
    """Whether the loss reaches not all parameters, as seen in one step that changes nothing.

    To look in every step, as DDP otherwise would, costs time and warns where there are none.
    """
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in loss.buffers()]
    was_training, device = loss.training, next(loss.parameters()).device
    inputs, targets = train.first(num_samples, device)
    loss.train()
    gradients = torch.autograd.grad(loss(inputs, targets), parameters, allow_unused=True)
    loss.train(was_training)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return any(gradient is None for gradient in gradients)
