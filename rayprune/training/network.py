"""The experiment's network on the experiment's data: made, started from, and costed."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import nn

from rayprune.config import Experiment, Model
from rayprune.data import Dataset
from rayprune.models import build_model
from rayprune.pruning.dead_inputs import without_dead_inputs
from rayprune.pruning.flops import Cost, cost, multiply_adds
from rayprune.pruning.masks import Masks, prunable
from rayprune.snapshot import Snapshot
from rayprune.training.order import derive_seed

log = logging.getLogger(__name__)


def make_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """The network with the initial weights of the experiment's seed."""
    torch.manual_seed(derive_seed(experiment.seed, "weights"))
    return _build(experiment.model, len(dataset.classes), dataset.image_shape[0])


def initial_snapshot(model: nn.Module) -> Snapshot:
    """A model before the dense run: every prunable weight is kept, no stage is recorded."""
    parameters = dict(model.named_parameters())
    masks = {name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in prunable(model)}
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Snapshot(weights, masks)


def network_cost(
    experiment: Experiment, dataset: Dataset, masks: Masks, *, filtered: nn.Module | None = None
) -> Cost:
    """Size and multiply-adds of the experiment's network under `masks`.

    `filtered` is the network if it loses whole filters: what reads their channels is gone, too.
    """
    counts = _count(experiment.model, len(dataset.classes), dataset.image_shape)
    left = None if filtered is None else _left(filtered, masks, dataset)
    return cost(*counts, masks, left)


def _left(network: nn.Module, masks: Masks, dataset: Dataset) -> Masks:
    """What is left without the removed filters; `masks` where the network can't be looked into."""
    try:
        return without_dead_inputs(network, masks, torch.zeros(1, *dataset.image_shape))
    except Exception as error:  # of the user's network: a trained stage is not lost for a number
        log.warning(
            "num_nonzero and flops_nonzero count the removed filters' own weights alone: %s "
            "does not run with other weights (%r)",
            type(network).__name__,
            error,
        )
        return masks


@lru_cache(maxsize=8)
def _count(
    model: Model, num_classes: int, image_shape: tuple[int, int, int]
) -> tuple[int, dict[str, int]]:
    """Parameters, and multiply-adds of each prunable weight; once for each network."""
    network = _build(model, num_classes, image_shape[0])
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return num_parameters, multiply_adds(network, image_shape)


def _build(model: Model, num_classes: int, in_channels: int) -> nn.Module:
    return build_model(
        model.name,
        target=model.target,
        kwargs=model.kwargs,
        weights=model.weights,
        weights_key=model.weights_key,
        new_head=model.new_head,
        num_classes=num_classes,
        in_channels=in_channels,
    )
