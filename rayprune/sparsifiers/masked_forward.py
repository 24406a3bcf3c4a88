"""Methods whose forward and backward pass use masked weights while the dense ones are updated."""

from __future__ import annotations

import torch
from torch import Tensor

from rayprune.sparsifiers.base import Sparsifier, copy_


class MaskedForward(Sparsifier):
    """`W * kept` between `before_forward` and `after_gradients`, the dense `W` at all other times.

    The gradient of the masked weights is taken for that of the dense ones (straight through). The
    weights are swapped in place, so there is no parametrization and state_dict keys never change.
    """

    _dense: list[Tensor]

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        self._dense = [weight.detach().clone() for weight in self.weights.values()]
        torch._foreach_mul_(list(self.weights.values()), list(self.kept.values()))

    @torch.no_grad()
    def after_gradients(self, step: int) -> None:
        copy_(self.weights, self._dense)
        self._dense = []
