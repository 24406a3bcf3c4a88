"""Gradual magnitude pruning.

Zhu & Gupta, "To prune, or not to prune" (2017): after the steps `t = interval, 2 interval, ...,
t_end` the smallest weights are masked, down to the sparsity

    s_t = s (1 - (1 - t / t_end)^3),    t_end = interval (N // interval - 1),

`N` being the steps of the run. As in the paper, a masked weight gets no gradient but keeps its
value, and may be chosen again at the next prune step; the last masks stay. Without recovery masks
only grow.

The paper prunes all layers alike (allocation uniform), every 100 to 1,000 steps. The set-up that
this one follows has one threshold for all layers, and prunes every 20 of 200 epochs.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import Gmp
from rayprune.pruning.masks import Masks, num_pruned
from rayprune.sparsifiers.base import (
    all_kept,
    borrow_scale_,
    cubic_sparsity,
    forget_momentum_,
    set_,
    steps_of,
    zero_,
)
from rayprune.sparsifiers.masked_forward import MaskedForward


def target_sparsities(sparsity: float, *, num_steps: int, interval: int) -> dict[int, float]:
    """Number of steps after which weights are masked -> sparsity from then on.

    `sparsity` in [0, 1); `interval` in steps, and a run shorter than two has no prune step. For 200
    steps, interval 20 and .9: {20: .2679, 40: .4765, ..., 180: .9}.
    """
    end = interval * (num_steps // interval - 1)
    return {t: cubic_sparsity(sparsity, t / end) for t in range(interval, end + 1, interval)}


class GradualMagnitudePruning(MaskedForward):
    """Masks more and more of the smallest weights, one interval after the other."""

    options: Gmp

    def begin(self) -> None:
        # Of an odd number of steps, half is rounded down: there are two intervals in every run.
        half = max(1, self.num_steps // 2)
        interval = min(half, steps_of(self.options.interval, self.num_steps))
        self.targets = target_sparsities(self.sparsity, num_steps=self.num_steps, interval=interval)
        self.kept = all_kept(self.weights)

    @property
    def masks(self) -> Masks:
        return {} if self.options.recover else self.kept

    def before_forward(self, step: int) -> None:
        if self.options.recover:
            super().before_forward(step)

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        if self.options.recover:
            super().after_gradients(step)
            for name, weight in self.weights.items():
                if weight.grad is not None:
                    weight.grad.mul_(self.kept[name])

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if step + 1 in self.targets:
            before = {name: mask.clone() for name, mask in self.kept.items()}
            set_(self.kept, self._pruned_to(self.targets[step + 1]))
            forget_momentum_(optimizer, self.weights, self.kept)
            stayed = {name: mask & self.kept[name] for name, mask in before.items()}
            borrow_scale_(optimizer, self.weights, stayed)
            if not self.options.recover:
                zero_(self.weights, self.kept)

    def final_masks(self) -> Masks:
        if num_pruned(self.kept) == self.num_pruned:
            return {name: mask.clone() for name, mask in self.kept.items()}
        return self._pruned_to(self.sparsity)

    def _pruned_to(self, sparsity: float) -> Masks:
        return self.largest(sparsity, among=None if self.options.recover else self.kept)
