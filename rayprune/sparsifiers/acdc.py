"""AC/DC, alternating compressed and decompressed training.

Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks" (2021):
after a dense warm-up, phases of equal length alternate. In a compressed one the smallest weights of
all layers are masked, as many as the goal says, and the masks stay; in a decompressed one all
weights train, those that were masked from 0 and without momentum. The phase before the end is
decompressed, and the end of the run is compressed, with masks from its beginning.

The paper, for 100 epochs of ImageNet: warm-up 10, phases of 5, a last decompressed phase of 10 up
to epoch 85, which is what the same fractions give here.
"""

from __future__ import annotations

import torch

from rayprune.config.sparsify import AcDc
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.base import Sparsifier, all_kept, forget_momentum_, set_, zero_


def compressed_phases(
    num_steps: int, *, warmup: float, phase: float, end: float
) -> list[tuple[int, int]]:
    """First step, and step after the last, of each compressed phase.

    `warmup`, `phase` and `end` are parts of the run that leave room between `warmup` and `end`; it
    is split into as many equal phases as come nearest to `phase`. 100 steps and .1, .05, .15: (10,
    15), (20, 25), ..., (70, 75), (85, 100).
    """
    alternating = 1 - warmup - end
    num_phases = max(1, round(alternating / phase))
    parts = [warmup + alternating * k / num_phases for k in range(num_phases)]
    starts = [*(round(part * num_steps) for part in parts), round((1 - end) * num_steps)]
    phases = [(starts[k], starts[k + 1]) for k in range(0, num_phases - 1, 2)]
    return [*phases, (starts[-1], num_steps)]


class AlternatingCompression(Sparsifier):
    """Masks that come and go, and stay in the end."""

    options: AcDc

    def begin(self) -> None:
        self.phases = compressed_phases(
            self.num_steps,
            warmup=self.options.warmup,
            phase=self.options.phase,
            end=self.options.end,
        )
        self.kept = all_kept(self.weights)
        if self.is_compressed(0):
            self._compress()

    @property
    def masks(self) -> Masks:
        return self.kept

    def is_compressed(self, step: int) -> bool:
        """Whether training step `step` is one with masks."""
        return any(first <= step < end for first, end in self.phases)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        before, after = self.is_compressed(step), self.is_compressed(step + 1)
        if after and not before:
            self._compress()
        elif before and not after and step + 1 < self.num_steps:
            forget_momentum_(optimizer, self.weights, self.kept)
            set_(self.kept, all_kept(self.weights))

    def final_masks(self) -> Masks:
        return self.largest(self.sparsity, among=self.kept)

    def _compress(self) -> None:
        set_(self.kept, self.largest(self.sparsity))
        zero_(self.weights, self.kept)
