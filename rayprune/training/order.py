"""Randomness derived, never stored: from (seed, cycle, epoch), for any number of workers."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from rayprune.training.worker import Worker


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def epoch_order(num_images: int, batch_size: int, *, seed: int, cycle: int, epoch: int) -> Tensor:
    """Image indices of an epoch, (steps, batch_size) int64; the images left over wait an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, cycle, epoch, "order"))
    num_steps = num_images // batch_size
    order = torch.randperm(num_images, generator=generator)
    return order[: num_steps * batch_size].view(num_steps, batch_size)


def epoch_randoms(
    num_steps: int, batch_size: int, width: int, *, seed: int, cycle: int, epoch: int
) -> Tensor:
    """Augmentation's random numbers in [0, 1), (steps, batch_size, width) float32."""
    generator = torch.Generator().manual_seed(derive_seed(seed, cycle, epoch, "augment"))
    return torch.rand(num_steps, batch_size, width, generator=generator)


def share(batches: Tensor, worker: Worker) -> Tensor:
    """A rank's part of every global batch, (steps, batch_size / world_size, …)."""
    size = batches.shape[1] // worker.world_size
    return batches[:, worker.rank * size : (worker.rank + 1) * size]
