"""What the training loop asks of a method that sparsifies during training.

The loop calls, in this order::

    sparsifier = make_sparsifier(...)           # model on its device, not yet wrapped by DDP
    optimizer = make_optimizer(optim, sparsifier.parameter_groups())
    for step in range(num_steps):
        sparsifier.before_forward(step)
        loss = task(model(x)) + sparsifier.penalty()  # where it is not None
        loss.backward()
        sparsifier.after_gradients(step)        # gradients averaged over the ranks, not clipped yet
        optimizer.step()
        apply_(weights, sparsifier.masks)
        sparsifier.after_step(step, optimizer)
    masks = sparsifier.finish()

Everything that a method does is a function of the weights, the gradients, the step and the seed, so
all ranks do the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rayprune.config.sparsify import Options, WithGoal
from rayprune.pruning.allocation import prune_weights, shapes_of
from rayprune.pruning.masks import Masks, num_weights, prunable


class Sparsifier:
    """A method that sparsifies during training; as it stands, dense training and one prune step.

    `masks` names the model's prunable weights, all True. `sparsity` in [0, 1) is the goal,
    `num_steps` the length of the whole stage, `weight_decay` the optimiser's, which works beside
    the gradient with `decoupled_decay`, as in AdamW, and in it without.
    """

    options: Options

    def __init__(
        self,
        options: Options,
        model: nn.Module,
        masks: Masks,
        *,
        sparsity: float = 0.0,
        num_steps: int = 0,
        weight_decay: float = 0.0,
        seed: int = 0,
        decoupled_decay: bool = False,
    ) -> None:
        parameters = dict(model.named_parameters())
        self.options = options
        self.model = model
        self.weights = {name: parameters[name] for name in masks}
        may_be_pruned = {*prunable(model), *masks}  # those of `prune.include` are in `masks` alone
        self.network = shapes_of({n: p for n, p in parameters.items() if n in may_be_pruned})
        self.num_pruned = round(sparsity * num_weights(masks))
        self.sparsity = sparsity
        self.num_steps = num_steps
        self.weight_decay = weight_decay
        self.seed = seed
        self.decoupled_decay = decoupled_decay
        self.kept: Masks = {}  # what an epoch checkpoint must hold; changed in place only
        with torch.no_grad():
            self.begin()

    def begin(self) -> None:
        """Start: a method may register parametrizations on the model, or mask its weights."""

    @property
    def masks(self) -> Masks:
        """What the loop multiplies into the weights after every optimiser step.

        The tensors are the same ones for the whole stage and change in place. Empty for a method
        whose weights stay dense while it trains.
        """
        return {}

    def parameter_groups(self, *, decay: Literal["all", "weights"] = "all") -> list[dict[str, Any]]:
        """The optimiser's parameter groups; "weights" decays only what has two dimensions or more.

        A learning rate is never in them: the loop sets the same one everywhere.
        """
        groups: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decays = decay == "all" or parameter.ndim > 1
                settings = {"weight_decay": self.weight_decay if decays else 0.0}
                settings |= self.settings(name)
                group = groups.setdefault(tuple(settings.items()), {"params": [], **settings})
                group["params"].append(parameter)
        return list(groups.values())

    def settings(self, name: str) -> dict[str, float]:
        """Settings that a parameter has in this method, in place of the optimiser's.

        Those of every optimiser, but for a method that the config refuses with others.
        """
        return {}

    def before_forward(self, step: int) -> None:
        """Called before the forward pass; steps count from 0 over the whole stage."""

    def penalty(self) -> Tensor | None:
        """What is added to the loss."""
        return None

    def after_gradients(self, step: int) -> None:
        """Called when gradients are final, before the optimiser's step."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Called after the optimiser's step and the multiplication with `masks`."""

    def final_masks(self) -> Masks:
        """The masks if training ended now; for a method with a goal, exactly that sparsity."""
        return self.largest(self.sparsity)

    def largest(self, sparsity: float, among: Masks | None = None) -> Masks:
        """Masks of the largest weights, `among` those of other masks if these are given."""
        assert isinstance(self.options, WithGoal), self.options.method
        return prune_weights(
            self.weights,
            all_kept(self.weights) if among is None else among,
            sparsity=sparsity,
            allocation=self.options.allocation,
            network=self.network,
        )

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        """Inside, the model computes with what `finish` would leave; yields the masks."""
        masks = self.final_masks()
        dense = [weight.detach().clone() for weight in self.weights.values()]
        zero_(self.weights, masks)
        try:
            yield masks
        finally:
            copy_(self.weights, dense)

    def finish(self) -> Masks:
        """End: plain state_dict keys, removed weights exactly 0; returns the final masks."""
        masks = self.final_masks()
        zero_(self.weights, masks)
        return masks

    def state(self) -> dict[str, Tensor]:
        """What an epoch checkpoint needs beside the model's and the optimiser's own state."""
        return {name: mask.clone() for name, mask in self.kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`. Raises a ValueError if it is not one of this method and model."""
        if state.keys() != self.kept.keys():
            odd = sorted(state.keys() ^ self.kept.keys())
            raise ValueError(
                f"the checkpoint must be of method {self.options.method!r} and this model, "
                f"but {', '.join(odd)} are in only one of them. Start the stage anew."
            )
        set_(self.kept, state)


def steps_of(fraction: float, num_steps: int) -> int:
    """A part of the run, in (0, 1], as a number of steps, at least one."""
    return max(1, round(fraction * num_steps))


def cubic_sparsity(sparsity: float, progress: float) -> float:
    """`s (1 - (1 - p)^3)`: from 0 to the goal `sparsity` as `progress` goes from 0 to 1."""
    return sparsity * (1 - (1 - min(1.0, progress)) ** 3)


def all_kept(weights: Mapping[str, Tensor]) -> Masks:
    """Masks that remove nothing."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def set_(masks: Masks, values: Mapping[str, Tensor]) -> None:
    """Give masks new values in place, since the loop holds the tensors."""
    for name, mask in masks.items():
        mask.copy_(values[name])


@torch.no_grad()
def zero_(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set removed weights to +0.0 (a multiplication would leave -0.0)."""
    for name, weight in weights.items():
        weight.masked_fill_(~masks[name], 0.0)


@torch.no_grad()
def copy_(weights: Mapping[str, Tensor], values: list[Tensor]) -> None:
    """Give weights back the values that they had."""
    torch._foreach_copy_(list(weights.values()), values)


@torch.no_grad()
def forget_momentum_(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], masks: Masks | None = None
) -> None:
    """Let the optimiser forget the gradients of weights whose mask is False; of all without masks.

    SGD's momentum becomes 0, and so does the first of Adam's averages. The second one divides the
    step: at 0, with a step count too large to correct for it, a weight would move by up to 6.6
    times the learning rate (for betas of .9 and .999). So without masks the count restarts as well,
    as in a fresh optimiser; with masks, see `borrow_scale_`.
    """
    for name, weight in weights.items():
        state = optimizer.state[weight]
        for kind in ("momentum_buffer", "exp_avg"):
            if state.get(kind) is not None:
                state[kind].mul_(0 if masks is None else masks[name])
        if masks is None and "exp_avg_sq" in state:
            state["exp_avg_sq"].zero_()
            state["step"].zero_()
    if masks is not None:
        borrow_scale_(optimizer, weights, masks)


@torch.no_grad()
def borrow_scale_(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], settled: Masks
) -> None:
    """Give weights that are not settled the mean of Adam's second average over those that are.

    What was masked for long has none of its own: it faded to 0. With its layer's, such a weight
    moves as its neighbours do until its own gradients are known. SGD has nothing of the kind.
    """
    for name, weight in weights.items():
        squares = optimizer.state[weight].get("exp_avg_sq")
        if squares is not None:
            known = squares[settled[name]]
            mean = known.mean() if known.numel() else squares.mean()
            squares.copy_(torch.where(settled[name], squares, mean))
