"""Dynamic pruning with feedback.

Lin et al., "Dynamic Model Pruning with Feedback" (2020): the gradient is taken at the masked
weights and updates the dense ones, so that a weight masked too early can come back,

    W <- W - lr grad L(M W).

The mask `M` is renewed every 16 steps: the largest weights of all layers together, for a sparsity
that rises as `s (1 - (1 - t / t_end)^3)` to the goal `s`, `t_end` being 3/4 of the run.
"""

from __future__ import annotations

from rayprune.config.sparsify import Dpf
from rayprune.sparsifiers.base import all_kept, set_
from rayprune.sparsifiers.masked_forward import MaskedForward


class DynamicPruningWithFeedback(MaskedForward):
    """Masks that follow the dense weights, which learn from the masked ones' gradients."""

    options: Dpf

    def begin(self) -> None:
        self.kept = all_kept(self.weights)

    def target_sparsity(self, step: int) -> float:
        """The sparsity of a mask made at `step`, in [0, goal]."""
        progress = min(1.0, step / (self.options.ramp * self.num_steps))
        return self.sparsity * (1 - (1 - progress) ** 3)

    def before_forward(self, step: int) -> None:
        if step % self.options.interval == 0:
            set_(self.kept, self.largest(self.target_sparsity(step)))
        super().before_forward(step)
