"""Continuous sparsification.

Savarese et al., "Winning the Lottery with Continuous Sparsification" (2020): every weight has a
mask parameter `m`, trained with it, and the model computes with

    w sigma(beta m) / sigma(m_0),

while `beta` rises from 1 to `beta_final` as `beta_final^(step / last step)`, so that the soft mask
becomes a hard one. The loss has the penalty `lambda sum sigma(beta m) / sigma(m_0)`; `m` has no
weight decay. Weights with `m > 0` are kept, as `w / sigma(m_0)`.

The run is split into `rounds`. In each, `beta` rises anew, and at the start of a later one

    m <- min(beta m, m_0),

with the last `beta`: what was masked stays so unless it gains much. With `rewind` all other
parameters go back to a point of the first round. Momentum of what is changed is forgotten.

Unlike here, each of the paper's rounds has a learning rate schedule of its own, rewinding takes
batch-norm statistics back too, and the network that is left is retrained from the rewound weights.
With 630 steps, small_cnn, fashion_mini and one seed, the defaults came to sparsity .947 and 83.3 %
validation accuracy; `m_0` = -.01 to .965 and 85.8 %, and with 3 rounds that go back to .1 of the
first one, to .989 and 84.2 %.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rayprune.config.sparsify import Cs
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.base import forget_momentum_
from rayprune.sparsifiers.reparametrized import Reparametrized, SparseWeight

MASK_NAME = ".0.m"  # how the name of each weight's mask parameter ends


class SoftMask(SparseWeight):
    """`w sigma(beta m) / sigma(m_0)`; `hard`: `w / sigma(m_0)` where `m > 0`, else 0."""

    def __init__(self, weight: Tensor, beta: Tensor, mask_init: float) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.full_like(weight, mask_init))
        self.mask_init = mask_init
        self.beta = beta  # one tensor for all layers, no buffer: DDP would send it in every step
        self.scale = 1 + math.exp(-mask_init)  # 1 / sigma(m_0)
        self.hard = False

    def forward(self, trained: Tensor) -> Tensor:
        mask = self.kept(trained) if self.hard else self.soft()
        return trained * mask * self.scale

    def soft(self) -> Tensor:
        return (self.beta * self.m).sigmoid()

    def start_round_(self) -> None:
        """Carry the masks of the round that ends over to the next one, whose `beta` is 1."""
        self.m.mul_(self.beta).clamp_(max=self.mask_init)

    def kept(self, trained: Tensor) -> Tensor:
        return self.m.detach() > 0


class ContinuousSparsification(Reparametrized[SoftMask]):
    """Learns a mask parameter for each weight; finds its own sparsity."""

    options: Cs

    def begin(self) -> None:
        first = next(iter(self.weights.values()))
        self.beta = torch.ones((), dtype=first.dtype, device=first.device)
        super().begin()
        rounds, rewind = self.options.rounds, self.options.rewind
        self.starts = sorted({round(k * self.num_steps / rounds) for k in range(rounds)})
        self.rewind_step: int | None = None  # before it the weights are those to go back to
        if rewind is not None and len(self.starts) > 1:
            self.rewind_step = round(rewind * self.starts[1])
            self.kept = {name: p.detach().clone() for name, p in self._rewound().items()}

    def sparse_weight(self, weight: Tensor) -> SoftMask:
        return SoftMask(weight, self.beta, self.options.mask_init)

    def settings(self, name: str) -> dict[str, float]:
        return {"weight_decay": 0.0} if name.endswith(MASK_NAME) else {}

    def beta_at(self, step: int) -> float:
        """`beta` at training step `step`, from 1 to `beta_final` in each round."""
        first, end = self._round(step)
        return self.options.beta_final ** ((step - first) / max(1, end - first - 1))

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        if step == self.rewind_step:
            for name, parameter in self._rewound().items():
                self.kept[name].copy_(parameter)
        if step in self.starts[1:]:
            self.beta.fill_(self.beta_at(step - 1))  # a run that was resumed has not been there
            for layer in self.layers.values():
                layer.start_round_()
            for name, kept in self.kept.items():
                self._rewound()[name].copy_(kept)
        self.beta.fill_(self.beta_at(step))

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        # The next step begins with other values; until then, what is measured is the last round's.
        if step + 1 in self.starts[1:]:
            forget_momentum_(optimizer, {name: layer.m for name, layer in self.layers.items()})
            if self.kept:
                forget_momentum_(optimizer, self._rewound())

    def penalty(self) -> Tensor:
        sums = [layer.soft().sum() * layer.scale for layer in self.layers.values()]
        return self.options.penalty * torch.stack(sums).sum()

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        self._set_hard(True)
        try:
            yield self.final_masks()
        finally:
            self._set_hard(False)

    def _round(self, step: int) -> tuple[int, int]:
        """First step, and step after the last, of the round that `step` is in."""
        number = bisect_right(self.starts, step)
        return self.starts[number - 1], [*self.starts, self.num_steps][number]

    def _rewound(self) -> dict[str, Tensor]:
        """The parameters that go back (batch-norm statistics do not: they differ by rank)."""
        parameters = self.model.named_parameters()
        return {name: p for name, p in parameters if not name.endswith(MASK_NAME)}

    def _set_hard(self, hard: bool) -> None:
        for layer in self.layers.values():
            layer.hard = hard
