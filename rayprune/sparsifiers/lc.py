"""Learning-compression.

Carreira-Perpinan & Idelbayev, "Learning-Compression Algorithms for Neural Net Pruning" (2018).
Their penalty `mu/2 ||w - theta||^2` pulls the weights to the nearest sparse ones, `theta`: the
fraction `1 - s` of the largest weights. `theta` is renewed every `interval` (their C step), and
`mu` grows from one to the next,

    mu_k = mu_0 a^k,

here with `a` such that the last one is `growth` times the first. As weight decay: it is cancelled
on the largest `1 - s` of the prunable weights, so that only the rest shrinks, and is removed at the
end. Biases and normalisation layers decay as usual. With AdamW, whose decay works beside the
gradient, so does this one.

Unlike here, the paper starts from a trained network, pulls the largest weights to their values at
the last C step too, and has a Lagrange multiplier for each weight. With 630 steps at learning rate
.1, small_cnn and fashion_mini, sparsity .95 and one seed, `mu` from .1 to .1 or 1 gave 85.0 %
validation accuracy, from .0005 or .005 to 5 84.2 %, from .01 to 1 83.8 %, and from .0005 to .05,
too weak to empty the rest, 64.3 %.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import Lc
from rayprune.sparsifiers.base import Sparsifier, set_, steps_of


class LearningCompression(Sparsifier):
    """A growing weight decay for the smallest weights only."""

    options: Lc

    def begin(self) -> None:
        self.interval = steps_of(self.options.interval, self.num_steps)
        self.kept = self.largest(self.sparsity)

    def settings(self, name: str) -> dict[str, float]:
        # The optimiser decays no prunable weight: the methods below do, the smallest.
        return {"weight_decay": 0.0} if name in self.weights else {}

    def mu(self, step: int) -> float:
        """Decay of the smallest weights at `step`; constant between two C steps."""
        first = self.weight_decay if self.options.mu is None else self.options.mu
        last_c_step = max(0, self.num_steps - 1) // self.interval
        return first * self.options.growth ** (step // self.interval / max(1, last_c_step))

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        if step % self.interval == 0:
            set_(self.kept, self.largest(self.sparsity))
        for name, weight in self.weights.items():
            if weight.grad is not None and not self.decoupled_decay:
                smallest = weight.masked_fill(self.kept[name], 0.0)
                weight.grad.add_(smallest, alpha=self.mu(step))

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if not self.decoupled_decay:
            return
        lr = optimizer.param_groups[0]["lr"]  # the loop sets the same one everywhere
        left = max(0.0, 1 - lr * self.mu(step))  # a pull that goes past 0 ends there
        for name, weight in self.weights.items():
            weight.mul_(torch.where(self.kept[name], 1.0, left))
