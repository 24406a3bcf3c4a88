"""Dynamic sparse training.

Liu et al., "Dynamic Sparse Training: Find Efficient Sparse Network From Scratch With Trainable
Masked Layers" (2020): each output unit has a learned threshold `t`, and the model computes with

    w S(|w| - t),    S(x) = 1 for x > 0, else 0.

For the gradient, `S'(x)` is taken as `2 - 4|x|` for `|x| <= .4`, `.4` for `.4 < |x| <= 1`, else 0.
The loss has the penalty `alpha sum exp(-t)`, which raises thresholds that are low. Thresholds start
at 0, have no weight decay, and go back to 0 in a layer that keeps at most 1 % of its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rayprune.config.sparsify import Dst
from rayprune.sparsifiers.reparametrized import Reparametrized, SparseWeight

LEAST_DENSITY = 0.01


class Step(torch.autograd.Function):
    """`S(x)`, with the long-tailed surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        size = x.abs()
        slope = torch.where(size <= 0.4, 2 - 4 * size, 0.4)
        return gradient * slope.masked_fill(size > 1, 0.0)


class TrainedThreshold(SparseWeight):
    """`w S(|w| - t)`, with `t` a number for each entry of the weight's first dimension."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.threshold = nn.Parameter(weight.new_zeros(len(weight)))  # out

    def forward(self, trained: Tensor) -> Tensor:
        return trained * Step.apply(self._excess(trained))

    def kept(self, trained: Tensor) -> Tensor:
        return self._excess(trained).detach() > 0

    def reset_if_empty_(self, trained: Tensor) -> None:
        """Thresholds to 0 where almost nothing is kept (on the device, without a look at it)."""
        density = self.kept(trained).float().mean()
        self.threshold.masked_fill_(density <= LEAST_DENSITY, 0.0)

    def _excess(self, trained: Tensor) -> Tensor:
        return trained.abs() - self.threshold.view(-1, *(1,) * (trained.ndim - 1))


class DynamicSparseTraining(Reparametrized[TrainedThreshold]):
    """Learns a threshold for each output unit; finds its own sparsity."""

    options: Dst

    def sparse_weight(self, weight: Tensor) -> TrainedThreshold:
        return TrainedThreshold(weight)

    def settings(self, name: str) -> dict[str, float]:
        return {"weight_decay": 0.0} if name.endswith(".0.threshold") else {}

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        for name, layer in self.layers.items():
            layer.reset_if_empty_(self.weights[name])

    def penalty(self) -> Tensor:
        sums = [(-layer.threshold).exp().sum() for layer in self.layers.values()]
        return self.options.penalty * torch.stack(sums).sum()
