"""RigL, the rigged lottery.

Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020): the network is sparse from
the first step, at random connections, as many in each layer as the ERK allocation says. Every
`interval` steps until `t_end`, instead of a gradient step, each layer drops its

    fraction(t) = alpha / 2 (1 + cos(pi t / t_end))

smallest connections, and grows as many where the dense gradient is largest among those not kept
(a dropped one may come back, with its weight). Grown weights start at 0, without momentum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rayprune.config.sparsify import RigL
from rayprune.pruning.allocation import layer_counts
from rayprune.pruning.masks import Masks, keep_largest
from rayprune.sparsifiers.base import Sparsifier, all_kept, forget_momentum_, set_, zero_


def replace_connections(
    weight: Tensor, gradient: Tensor, kept: Tensor, num_replaced: int
) -> Tensor:
    """The new mask of one layer: `num_replaced` smallest dropped, as many grown.

    `weight`, `gradient` and the bool tensor `kept` have one shape. The number kept stays the same.
    """
    num_removed = int((~kept).sum())
    sizes = weight.abs().masked_fill(~kept, -1.0)  # -1 goes first: what is not kept anyway
    stays = keep_largest({"": sizes}, num_removed + num_replaced)[""]
    wanted = gradient.abs().masked_fill(stays, torch.finfo(gradient.dtype).max)
    return keep_largest({"": wanted}, num_removed)[""]


class RiggedLottery(Sparsifier):
    """Sparse training whose connections move to where the gradient is large."""

    options: RigL

    def begin(self) -> None:
        shapes = {name: tuple(weight.shape) for name, weight in self.weights.items()}
        counts = layer_counts("erk", shapes, self.num_pruned)
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: equal on every device
        order = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
        self.kept = all_kept(self.weights)
        set_(self.kept, {n: keep_largest({n: order[n]}, counts[n])[n] for n in order})
        self._grown: Masks = {}
        zero_(self.weights, self.kept)

    @property
    def masks(self) -> Masks:
        return self.kept

    def fraction(self, step: int) -> float:
        """The part of each layer's connections that is replaced at `step`; 0 for none."""
        end = self.options.end * self.num_steps
        if step == 0 or step % self.options.interval or step >= end:
            return 0.0
        return self.options.fraction / 2 * (1 + math.cos(math.pi * step / end))

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        if fraction := self.fraction(step):
            new = {name: self._replaced(name, fraction) for name in self.weights}
            self._grown = {name: new[name] & ~self.kept[name] for name in new}
            set_(self.kept, new)
            for parameter in self.model.parameters():
                parameter.grad = None  # SGD leaves what has no gradient as it is: no step
        else:
            for name, weight in self.weights.items():
                if weight.grad is not None:
                    weight.grad.mul_(self.kept[name])

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self._grown:
            old = {name: ~grown for name, grown in self._grown.items()}
            forget_momentum_(optimizer, self.weights, old)
            self._grown = {}

    def final_masks(self) -> Masks:
        return {name: mask.clone() for name, mask in self.kept.items()}

    def _replaced(self, name: str, fraction: float) -> Tensor:
        weight, kept = self.weights[name], self.kept[name]
        if weight.grad is None:
            return kept
        return replace_connections(weight, weight.grad, kept, int(fraction * int(kept.sum())))
