"""Continuous sparsification.

Savarese et al., "Winning the Lottery with Continuous Sparsification" (2020): every weight has a
mask parameter `m`, trained with it, and the model computes with

    w sigma(beta m) / sigma(m_0),

while `beta` rises from 1 to `beta_final` as `beta_final^(step / last step)`, so that the soft mask
becomes a hard one. The loss has the penalty `lambda sum sigma(beta m)`; `m` has no weight decay.
Weights with `m > 0` are kept, as `w / sigma(m_0)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rayprune.config.sparsify import Cs
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.reparametrized import Reparametrized, SparseWeight


class SoftMask(SparseWeight):
    """`w sigma(beta m) / sigma(m_0)`; `hard`: `w / sigma(m_0)` where `m > 0`, else 0."""

    def __init__(self, weight: Tensor, beta: Tensor, mask_init: float) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.full_like(weight, mask_init))
        self.beta = beta  # one tensor for all layers, no buffer: DDP would send it in every step
        self.scale = 1 + math.exp(-mask_init)  # 1 / sigma(m_0)
        self.hard = False

    def forward(self, trained: Tensor) -> Tensor:
        mask = self.kept(trained) if self.hard else self.soft()
        return trained * mask * self.scale

    def soft(self) -> Tensor:
        return (self.beta * self.m).sigmoid()

    def kept(self, trained: Tensor) -> Tensor:
        return self.m.detach() > 0


class ContinuousSparsification(Reparametrized[SoftMask]):
    """Learns a mask parameter for each weight; finds its own sparsity."""

    options: Cs

    def begin(self) -> None:
        first = next(iter(self.weights.values()))
        self.beta = torch.ones((), dtype=first.dtype, device=first.device)
        super().begin()

    def sparse_weight(self, weight: Tensor) -> SoftMask:
        return SoftMask(weight, self.beta, self.options.mask_init)

    def settings(self, name: str) -> dict[str, float]:
        return {"weight_decay": 0.0} if name.endswith(".0.m") else {}

    def before_forward(self, step: int) -> None:
        self.beta.fill_(self.options.beta_final ** (step / max(1, self.num_steps - 1)))

    def penalty(self) -> Tensor:
        soft_sums = [layer.soft().sum() for layer in self.layers.values()]
        return self.options.penalty * torch.stack(soft_sums).sum()

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        self._set_hard(True)
        try:
            yield self.final_masks()
        finally:
            self._set_hard(False)

    def _set_hard(self, hard: bool) -> None:
        for layer in self.layers.values():
            layer.hard = hard
