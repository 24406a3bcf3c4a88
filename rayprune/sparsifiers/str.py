"""STR, soft threshold weight reparametrization.

Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity" (2020): the model
computes with

    sign(w) relu(|w| - sigmoid(theta)),

`theta` being learned, one number a layer. Weight decay pulls `theta` up from its negative start
value, and with it the threshold, until the gradient of the loss holds against it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayprune.config.sparsify import Str
from rayprune.sparsifiers.reparametrized import Reparametrized, SparseWeight


class SoftThreshold(SparseWeight):
    """`sign(w) relu(|w| - sigmoid(theta))`."""

    def __init__(self, weight: Tensor, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((), theta, dtype=weight.dtype, device=weight.device))

    def forward(self, trained: Tensor) -> Tensor:
        return trained.sign() * (trained.abs() - self.theta.sigmoid()).relu()

    def kept(self, trained: Tensor) -> Tensor:
        return trained.abs() > self.theta.detach().sigmoid()


class SoftThresholdReparametrization(Reparametrized[SoftThreshold]):
    """Learns each layer's threshold; finds its own sparsity."""

    options: Str

    def sparse_weight(self, weight: Tensor) -> SoftThreshold:
        return SoftThreshold(weight, self.options.theta_init)

    def settings(self, name: str) -> dict[str, float]:
        if not name.endswith(".0.theta"):
            return {}
        own = self.options.theta_decay
        return {"weight_decay": self.weight_decay if own is None else own}
