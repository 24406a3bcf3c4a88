"""Learning-compression.

Carreira-Perpinan & Idelbayev, "Learning-Compression Algorithms for Neural Net Pruning" (2018).
Their penalty `mu/2 ||w - theta||^2`, with `theta` the fraction `1 - s` of the largest weights,
pulls the others to zero. As weight decay: it is cancelled on the largest `1 - s` of the prunable
weights, chosen anew in each step, so that only the rest shrinks. The rest is removed at the end.
Biases and normalisation layers decay as usual.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import Lc
from rayprune.sparsifiers.base import Sparsifier


class LearningCompression(Sparsifier):
    """Weight decay for the smallest weights only."""

    options: Lc

    def settings(self, name: str) -> dict[str, float]:
        # The optimiser decays no prunable weight: `after_gradients` does, for the smallest.
        return {"weight_decay": 0.0} if name in self.weights else {}

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        own = self.options.weight_decay
        largest = self.final_masks()
        for name, weight in self.weights.items():
            if weight.grad is not None:
                smallest = weight.masked_fill(largest[name], 0.0)
                weight.grad.add_(smallest, alpha=self.weight_decay if own is None else own)
