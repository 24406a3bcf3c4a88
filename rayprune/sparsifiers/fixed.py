"""Fixed masks: retraining after a prune step, and a plain dense run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from rayprune.config.sparsify import Options
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.base import Sparsifier, zero_


class FixedMasks(Sparsifier):
    """The masks that a prune step made, unchanged until the end.

    `silenced` are masks of what else belongs to a removed filter: its bias, its batch norm.
    """

    def __init__(
        self, model: nn.Module, masks: Masks, *, silenced: Masks, weight_decay: float
    ) -> None:
        fixed = {**masks, **silenced}
        super().__init__(Options(), model, fixed, weight_decay=weight_decay)
        # Laid out as their weights, or the fused multiply would have to reorder channels_last.
        self.fixed = {
            name: torch.empty_like(weight, dtype=torch.bool).copy_(fixed[name])
            for name, weight in self.weights.items()
        }
        self.applied = {name: mask for name, mask in self.fixed.items() if not mask.all()}
        self.result = masks
        zero_(self.weights, self.fixed)

    @property
    def masks(self) -> Masks:
        return self.applied

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        yield self.result  # the weights are masked at every step

    def finish(self) -> Masks:
        zero_(self.weights, self.fixed)
        return self.result
