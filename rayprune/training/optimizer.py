"""The optimiser of a stage: how it is made, how gradients are clipped, and what it remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rayprune.config.optim import Optim
from rayprune.pruning.masks import Masks, Weights

STEP = "step"
KINDS = ("momentum_buffer", "exp_avg", "exp_avg_sq", STEP)  # what torch's optimisers remember


def make_optimizer(optim: Optim, groups: Iterable[dict[str, Any]]) -> Optimizer:
    """torch's optimiser over these parameter groups; the training loop sets the learning rate.

    Raises ``ValueError`` without a group.
    """
    groups = list(groups)
    if not groups:
        raise ValueError(
            "experiment.model: no parameter of the network can be trained, requires_grad is False "
            "for all of them. Leave it True for those that are to be"
        )
    shared: dict[str, Any] = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if optim.name == "sgd":
        nesterov = optim.weight_decay > 0 and optim.momentum > 0
        return SGD(groups, momentum=optim.momentum, nesterov=nesterov, fused=True, **shared)
    kind = Adam if optim.name == "adam" else AdamW
    return kind(groups, betas=optim.betas, eps=optim.eps, fused=True, **shared)


@torch.no_grad()
def clip_gradients_(model: nn.Module, weights: Weights, masks: Masks, max_norm: float) -> None:
    """Scale all gradients so that their norm is at most `max_norm`; those of pruned weights are 0.

    `masks` are of `weights`, which are parameters of the model. Ranks do the same, since their
    gradients are averages already.
    """
    for name, mask in masks.items():
        gradient = weights[name].grad
        if gradient is not None:
            gradient.mul_(mask)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, by kind and parameter: "exp_avg:conv.weight"."""
    return {
        f"{kind}:{name}": value
        for name, parameter in _trained(model, optimizer)
        for kind in KINDS
        if (value := optimizer.state[parameter].get(kind)) is not None
    }


def set_optimizer_state_(
    model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Let the optimiser go on with what `optimizer_state` gave, and with nothing else."""
    optimizer.state.clear()
    for name, parameter in _trained(model, optimizer):
        for kind in KINDS:
            if f"{kind}:{name}" in state:
                optimizer.state[parameter][kind] = _placed(kind, state[f"{kind}:{name}"], parameter)


def _placed(kind: str, value: Tensor, parameter: Tensor) -> Tensor:
    """A copy on the parameter's device, where the fused kernels want a step count, too."""
    if kind == STEP:
        return value.to(parameter.device, copy=True)
    # Laid out as the parameter is, or the fused step would mix up a channels_last weight.
    return torch.empty_like(parameter.detach()).copy_(value)


def _trained(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return ((n, p) for n, p in model.named_parameters() if id(p) in trained)
