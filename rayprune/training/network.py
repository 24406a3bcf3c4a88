"""The experiment's network on the experiment's data: made, started from, and costed."""

from __future__ import annotations

import logging
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from rayprune.config import Experiment, Model
from rayprune.data import Dataset, map_tensors
from rayprune.models import brought_masks, build_model
from rayprune.pruning.dead_inputs import without_dead_inputs
from rayprune.pruning.flops import Cost, cost, multiply_adds
from rayprune.pruning.masks import Masks, prunable
from rayprune.snapshot import Snapshot
from rayprune.training.order import derive_seed
from rayprune.training.task import make_task

MOST_COUNTS = 8

log = logging.getLogger(__name__)


def make_model(experiment: Experiment, dataset: Dataset, *, is_filled: bool = True) -> nn.Module:
    """The network with the initial weights of the experiment's seed, or with those it brings.

    Without `is_filled` the file of brought weights is not read, for a snapshot's will follow.
    """
    torch.manual_seed(derive_seed(experiment.seed, "weights"))
    return _build(experiment.model, dataset, is_filled)


def initial_snapshot(model: nn.Module, experiment: Experiment) -> Snapshot:
    """A model before the dense run, of which no stage is recorded.

    Every prunable weight is kept, unless the weights come from a folder of ours with masks.
    """
    brought = brought_masks(experiment.model.weights, model)
    names = {*prunable(model, experiment.prune.include), *brought}
    masks = {
        name: brought.get(name, torch.ones(parameter.shape, dtype=torch.bool))
        for name, parameter in model.named_parameters()
        if name in names
    }
    held = model.state_dict()
    others = [name for name, value in held.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"experiment.model: the state_dict of {type(model).__name__} must hold tensors alone, "
            f"got {', '.join(others)}. Keep what get_extra_state returns as a buffer"
        )
    return Snapshot({name: tensor.detach().clone() for name, tensor in held.items()}, masks)


def network_cost(
    experiment: Experiment, dataset: Dataset, masks: Masks, *, filtered: nn.Module | None = None
) -> Cost:
    """Size and multiply-adds of the experiment's network under `masks`, for one sample.

    `filtered` is the network if it loses whole filters: what reads their channels is gone, too.
    """
    left = None if filtered is None else _left(filtered, masks, dataset)
    return cost(*_count(experiment, dataset), masks, left)


def _left(network: nn.Module, masks: Masks, dataset: Dataset) -> Masks:
    """What is left without the removed filters; `masks` where the network can't be looked into."""
    try:
        return without_dead_inputs(network, masks, dataset.example[0])
    except Exception as error:  # of the user's network: a trained stage is not lost for a number
        log.warning(
            "num_nonzero and flops_nonzero count the removed filters' own weights alone: %s "
            "does not run with other weights (%r)",
            type(network).__name__,
            error,
        )
        return masks


_counts: dict[Hashable, tuple[int, dict[str, int]]] = {}  # of the networks that were counted last


def _count(experiment: Experiment, dataset: Dataset) -> tuple[int, dict[str, int]]:
    """Parameters, and multiply-adds of each prunable weight; once for each network."""
    sizes = str(map_tensors(lambda tensor: (tuple(tensor.shape), tensor.dtype), dataset.example))
    include = experiment.prune.include
    key = (experiment.model, experiment.task, include, len(dataset.classes), sizes)
    if key not in _counts:
        while len(_counts) >= MOST_COUNTS:
            _counts.pop(next(iter(_counts)))
        _counts[key] = _count_network(experiment, dataset)
    return _counts[key]


def _count_network(experiment: Experiment, dataset: Dataset) -> tuple[int, dict[str, int]]:
    network = _build(experiment.model, dataset, is_filled=False)
    task = make_task(experiment.task)

    def forward(model: nn.Module, device: torch.device) -> None:
        inputs, targets = map_tensors(lambda tensor: tensor.to(device), dataset.example)
        task.forward(model, inputs, targets)

    parameters = dict(network.named_parameters())
    names = prunable(network, experiment.prune.include)
    num_parameters = sum(parameter.numel() for parameter in parameters.values())
    try:
        return num_parameters, multiply_adds(network, names, forward)
    except Exception as error:  # of the user's network: a trained stage is not lost for a number
        log.warning(
            "flops count every weight once: %s does not run on a CPU with one sample (%r)",
            type(network).__name__,
            error,
        )
        return num_parameters, {name: parameters[name].numel() for name in names}


def _build(model: Model, dataset: Dataset, is_filled: bool) -> nn.Module:
    return build_model(
        model.name,
        target=model.target,
        kwargs=model.kwargs,
        weights=model.weights,
        weights_key=model.weights_key,
        new_head=model.new_head,
        num_classes=len(dataset.classes) or None,
        in_channels=dataset.num_channels,
        is_filled=is_filled,
    )
