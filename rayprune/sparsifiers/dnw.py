"""Discovering neural wirings.

Wortsman et al., "Discovering Neural Wirings" (2019): in each step the forward pass uses the
fraction `1 - s` of each layer's weights that are largest, and the gradient goes straight through to
all weights, so that an unused connection can grow into use. Layers have the sparsities of an
allocation (the paper: the same in each).
"""

from __future__ import annotations

from rayprune.config.sparsify import Dnw
from rayprune.sparsifiers.masked_forward import MaskedForward


class DiscoveringNeuralWirings(MaskedForward):
    """Always as sparse as the goal, in the forward pass; never in the update."""

    options: Dnw

    def before_forward(self, step: int) -> None:
        self.kept = self.final_masks()
        super().before_forward(step)

    def after_gradients(self, step: int) -> None:
        super().after_gradients(step)
        self.kept = {}  # made anew in each step: nothing for a checkpoint
