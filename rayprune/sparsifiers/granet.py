"""GraNet, gradual pruning with regrowth.

Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration" (2021): every
`interval` steps the smallest of the remaining weights are pruned, over all layers, down to

    s_t = s (1 - (1 - t / t_end)^3),    t_end = .69 of the run,

and then each layer drops the fraction

    r_t = .005 + (r - .005) / 2 (1 + cos(pi t / N)),    r = .5, N the steps of the run,

of its survivors, the smallest, and grows as many where the gradient is largest among those not
kept. The exchange goes on to the end, when nothing is pruned any more.

The paper does so every 1,000 of 62,560 steps with CIFAR. It starts dense, as here, or with half of
the weights; that start is left out.
"""

from __future__ import annotations

import math

import torch

from rayprune.config.sparsify import GraNet
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.base import all_kept, cubic_sparsity, set_, steps_of, zero_
from rayprune.sparsifiers.moving import MovingConnections

LEAST_REGROWN = 0.005


class GradualPruningWithRegrowth(MovingConnections):
    """Prunes more and more, and moves connections all the while."""

    options: GraNet

    def begin(self) -> None:
        self.interval = steps_of(self.options.interval, self.num_steps)
        self.kept = all_kept(self.weights)

    def target_sparsity(self, step: int) -> float:
        """The sparsity after a prune step that follows training step `step`, in [0, goal]."""
        return cubic_sparsity(self.sparsity, step / (self.options.ramp * self.num_steps))

    def fraction(self, step: int) -> float:
        if step == 0 or step % self.interval:
            return 0.0
        falling = (1 + math.cos(math.pi * step / self.num_steps)) / 2
        return LEAST_REGROWN + (self.options.regrow - LEAST_REGROWN) * falling

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self.fraction(step):
            set_(self.kept, self.largest(self.target_sparsity(step), among=self.kept))
            zero_(self.weights, self.kept)  # what was pruned and grows again starts at 0
        super().after_step(step, optimizer)

    def final_masks(self) -> Masks:
        return self.largest(self.sparsity, among=self.kept)
