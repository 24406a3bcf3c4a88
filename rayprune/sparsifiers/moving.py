"""Methods that train sparse and move connections to where the dense gradient is large."""

from __future__ import annotations

import torch
from torch import Tensor

from rayprune.pruning.masks import keep_largest
from rayprune.sparsifiers.base import Sparsifier, forget_momentum_, zero_


def replace_connections(
    weight: Tensor, gradient: Tensor, kept: Tensor, num_replaced: int
) -> Tensor:
    """The new mask of one layer: `num_replaced` smallest dropped, as many grown.

    `weight`, `gradient` and the bool tensor `kept` have one shape. The number kept stays the same.
    A connection that was dropped may come back.
    """
    num_removed = int((~kept).sum())
    sizes = weight.abs().masked_fill(~kept, -1.0)  # -1 goes first: what is not kept anyway
    stays = keep_largest({"": sizes}, num_removed + num_replaced)[""]
    wanted = gradient.abs().masked_fill(stays, torch.finfo(gradient.dtype).max)
    return keep_largest({"": wanted}, num_removed)[""]


class MovingConnections(Sparsifier):
    """What is not kept is 0 and gets no gradient; now and then connections are replaced.

    They are so after the optimiser's step, by the weights that it made and by the dense gradient
    that it had a part of. Grown weights start at 0 (those just dropped where they were), without
    momentum.
    """

    _gradients: dict[str, Tensor]

    @property
    def masks(self) -> dict[str, Tensor]:
        return self.kept

    def fraction(self, step: int) -> float:
        """Of each layer's connections, the part that is replaced after `step`; 0 for none."""
        raise NotImplementedError

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        gradients = {n: w.grad for n, w in self.weights.items() if w.grad is not None}
        wanted = self.fraction(step) > 0
        self._gradients = {n: g.clone() for n, g in gradients.items()} if wanted else {}
        for name, gradient in gradients.items():
            gradient.mul_(self.kept[name])

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        fraction, stayed = self.fraction(step), {}
        for name, gradient in self._gradients.items():
            weight, kept = self.weights[name], self.kept[name]
            new = replace_connections(weight, gradient, kept, int(fraction * int(kept.sum())))
            stayed[name] = kept & new
            kept.copy_(new)
        if stayed:
            forget_momentum_(optimizer, {n: self.weights[n] for n in stayed}, stayed)
            zero_(self.weights, self.kept)
        self._gradients = {}
