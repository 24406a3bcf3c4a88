"""Gradual magnitude pruning.

Zhu & Gupta, "To prune, or not to prune" (2017), with the steps counted in epochs: at the end of the
epochs `t = interval, 2 interval, ..., t_end` the smallest weights are masked, down to the sparsity

    s_t = s (1 - (1 - t / t_end)^3),    t_end = interval (T // interval - 1),

`T` being the epochs of the run. As in the paper, a masked weight gets no gradient but keeps its
value, and may be chosen again at the next prune step; the last masks stay. Without recovery masks
only grow.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import Gmp
from rayprune.pruning.allocation import prune_weights
from rayprune.pruning.masks import Masks, num_pruned
from rayprune.sparsifiers.base import all_kept, forget_momentum_, set_, zero_
from rayprune.sparsifiers.masked_forward import MaskedForward


def target_sparsities(sparsity: float, *, epochs: int, interval: int) -> dict[int, float]:
    """Epoch (counted from 1) at whose end weights are masked -> sparsity after it.

    `sparsity` in [0, 1); `interval` in epochs, at most half of `epochs`. For 200 epochs, interval
    20 and .9: {20: .2679, 40: .4765, ..., 180: .9}.
    """
    if 2 * interval > epochs:
        raise ValueError(
            f"dense.sparsify.interval must be at most half of the dense run's {epochs} epochs, "
            f"got {interval}. Write a smaller interval, or train for {2 * interval} epochs."
        )
    end = interval * (epochs // interval - 1)
    times = range(interval, end + 1, interval)
    return {t: sparsity * (1 - (1 - t / end) ** 3) for t in times}


class GradualMagnitudePruning(MaskedForward):
    """Masks more and more of the smallest weights, a few epochs apart."""

    options: Gmp

    def begin(self) -> None:
        epochs = self.num_steps // self.steps_per_epoch
        interval = self.options.interval or max(1, epochs // 10)
        self.targets = target_sparsities(self.sparsity, epochs=epochs, interval=interval)
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
        epoch, rest = divmod(step + 1, self.steps_per_epoch)
        if rest == 0 and epoch in self.targets:
            set_(self.kept, self._pruned_to(self.targets[epoch]))
            forget_momentum_(optimizer, self.weights, self.kept)
            if not self.options.recover:
                zero_(self.weights, self.kept)

    def final_masks(self) -> Masks:
        if num_pruned(self.kept) == self.num_pruned:
            return {name: mask.clone() for name, mask in self.kept.items()}
        return self._pruned_to(self.sparsity)

    def _pruned_to(self, sparsity: float) -> Masks:
        if self.options.recover:
            return self.largest(sparsity)
        return prune_weights(
            self.weights,
            self.kept,
            sparsity=sparsity,
            allocation=self.options.allocation,
            network=self.network,
        )
