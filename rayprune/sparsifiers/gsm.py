"""Global sparse momentum.

Ding et al., "Global Sparse Momentum SGD for Pruning Very Deep Neural Networks" (2019): in each
step only the fraction `1 - s` of the prunable weights with the largest `|w dL/dw|`, over all
layers, gets its gradient; the others only decay,

    z <- beta z + eta w + B dL/dw,    w <- w - alpha z,

`B` being that selection, `eta` the weight decay, `beta` a momentum of about .99. What has decayed
to almost nothing is removed at the end. Biases and normalisation layers train as usual. As in the
paper there is no Nesterov momentum for the weights. With 630 steps, small_cnn, fashion_mini,
sparsity .95 and one seed, `beta` .99 and `eta` .005 gave 83.3 % validation accuracy (84.8 with
Nesterov), `beta` .9 and `eta` .01 81.5 (81.8).

Unlike here, the paper starts from a trained network.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import Gsm
from rayprune.pruning.masks import keep_largest
from rayprune.sparsifiers.base import Sparsifier


class GlobalSparseMomentum(Sparsifier):
    """Gradients for the most important weights only, decay for all."""

    options: Gsm

    def settings(self, name: str) -> dict[str, float]:
        if name not in self.weights:
            return {}
        own = {"momentum": self.options.momentum, "weight_decay": self.options.weight_decay}
        given = {key: value for key, value in own.items() if value is not None}
        return {**given, "nesterov": False}

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        gradients = {n: w.grad for n, w in self.weights.items() if w.grad is not None}
        importance = {n: torch.zeros_like(w) for n, w in self.weights.items()}
        importance |= {n: (self.weights[n] * g).abs() for n, g in gradients.items()}
        active = keep_largest(importance, self.num_pruned)
        for name, gradient in gradients.items():
            gradient.mul_(active[name])
