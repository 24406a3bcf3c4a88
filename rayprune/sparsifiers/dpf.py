"""Dynamic pruning with feedback.

Lin et al., "Dynamic Model Pruning with Feedback" (2020): the gradient is taken at the masked
weights and updates the dense ones, so that a weight masked too early can come back,

    W <- W - lr grad L(M W).

The mask `M` is renewed every `interval`: the largest weights of all layers together, for a sparsity
that rises as `s (1 - (1 - t / t_end)^3)` to the goal `s`, `t_end` being 3/4 of the run.

The paper renews the mask every 16 steps of 300 epochs with CIFAR, 1.4e-4 of the run. Fewer renewals
cost much: with 630 steps, one every 1, 4, 16 and 64 steps gave 86.0, 86.0, 79.7 and 67.0 %
validation accuracy (small_cnn, fashion_mini, sparsity .95, one seed).
"""

from __future__ import annotations

from rayprune.config.sparsify import Dpf
from rayprune.sparsifiers.base import all_kept, cubic_sparsity, set_, steps_of
from rayprune.sparsifiers.masked_forward import MaskedForward


class DynamicPruningWithFeedback(MaskedForward):
    """Masks that follow the dense weights, which learn from the masked ones' gradients."""

    options: Dpf

    def begin(self) -> None:
        self.kept = all_kept(self.weights)
        self.interval = steps_of(self.options.interval, self.num_steps)

    def target_sparsity(self, step: int) -> float:
        """The sparsity of a mask made at `step`, in [0, goal]."""
        return cubic_sparsity(self.sparsity, step / (self.options.ramp * self.num_steps))

    def before_forward(self, step: int) -> None:
        if step % self.interval == 0:
            set_(self.kept, self.largest(self.target_sparsity(step)))
        super().before_forward(step)
