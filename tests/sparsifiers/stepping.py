"""A training loop that keeps the protocol, and models small enough to compute by hand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.config.optim import Optim
from rayprune.config.sparsify import Options
from rayprune.pruning.masks import apply_, prunable
from rayprune.sparsifiers import Sparsifier, make_sparsifier
from rayprune.training.optimizer import make_optimizer


@dataclass
class Training:
    """A model with its sparsifier and optimiser, as the training loop holds them."""

    model: nn.Module
    sparsifier: Sparsifier
    optimizer: torch.optim.Optimizer

    def step(self, step: int, loss: Callable[[], Tensor]) -> None:
        self.sparsifier.before_forward(step)
        objective, penalty = loss(), self.sparsifier.penalty()
        if penalty is not None:
            objective = objective + penalty
        self.optimizer.zero_grad()
        objective.backward()
        self.sparsifier.after_gradients(step)
        self.optimizer.step()
        apply_(self.sparsifier.weights, self.sparsifier.masks)
        self.sparsifier.after_step(step, self.optimizer)

    def classify(self, batches: Iterable[tuple[Tensor, Tensor]], first_step: int = 0) -> None:
        for step, (x, y) in enumerate(batches, first_step):
            self.step(step, lambda x=x, y=y: nn.functional.cross_entropy(self.model(x), y))


def begin(
    options: Options,
    model: nn.Module,
    *,
    sparsity: float = 0.5,
    num_steps: int = 8,
    lr: float = 0.1,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    optim: Optim | None = None,
) -> Training:
    """SGD without Nesterov momentum, or what `optim` says, in place of the three numbers."""
    masks = {
        name: torch.ones_like(model.get_parameter(name), dtype=torch.bool)
        for name in prunable(model)
    }
    sparsifier = make_sparsifier(
        options,
        model,
        masks,
        sparsity=sparsity,
        num_steps=num_steps,
        weight_decay=weight_decay if optim is None else optim.weight_decay,
        seed=0,
        decoupled_decay=optim is not None and optim.name == "adamw",
    )
    groups = sparsifier.parameter_groups()
    if optim is not None:
        return Training(model, sparsifier, make_optimizer(optim, groups))
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    return Training(model, sparsifier, optimizer)


class ByHand:
    """One linear layer with given weights, and a loss whose gradient is given."""

    def __init__(self, weights: list[float] | list[list[float]]) -> None:
        rows = torch.tensor(weights).reshape(-1, torch.tensor(weights).shape[-1])  # out, in
        self.layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
        self.layer.weight.data = rows.clone()
        self.model = nn.Sequential(self.layer)

    def begin(self, options: Options, **settings: Any) -> Training:
        return begin(options, self.model, **settings)

    def loss(self, gradient: list[float] | list[list[float]]) -> Callable[[], Tensor]:
        """`sum(gradient * W)`, W being what the forward pass computes with."""
        return lambda: (torch.tensor(gradient) * self.layer.weight).sum()
