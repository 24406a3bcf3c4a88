"""What the steps of a stage need, made once as it begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rayprune.config import Experiment
from rayprune.data import Dataset
from rayprune.plan import Stage
from rayprune.pruning.masks import Masks, not_ignored
from rayprune.pruning.structured import channel_masks
from rayprune.sparsifiers import FixedMasks, Sparsifier, make_sparsifier
from rayprune.training.ema import WeightAverage, start_average
from rayprune.training.optimizer import make_optimizer
from rayprune.training.order import derive_seed
from rayprune.training.rates import StageRates
from rayprune.training.task import Task, make_task
from rayprune.training.worker import Worker


@dataclass(frozen=True)
class StageSetup:
    """Model, data, learning rates, sparsifier and optimiser of one stage on one rank."""

    experiment: Experiment
    stage: Stage
    model: nn.Module
    parallel: nn.Module
    """The model behind DDP; the model itself on a single worker."""
    dataset: Dataset
    worker: Worker
    rates: StageRates
    sparsifier: Sparsifier
    optimizer: Optimizer
    average: WeightAverage | None
    """Of the weights, if that is asked for: what is measured and shipped."""
    task: Task

    @property
    def steps_per_epoch(self) -> int:
        return num_steps_per_epoch(self.experiment, self.dataset)

    @property
    def images_per_epoch(self) -> int:
        return self.steps_per_epoch * self.experiment.batch_size

    @property
    def local_batch(self) -> int:
        """Images a step on this rank."""
        return self.experiment.batch_size // self.worker.world_size


def set_up(
    experiment: Experiment,
    stage: Stage,
    masks: Masks,
    rates: StageRates,
    model: nn.Module,
    dataset: Dataset,
    worker: Worker,
) -> StageSetup:
    """Sparsifier, then DDP, then optimiser: each sees the parameters that the one before made.

    The average begins with the weights as they are masked.
    """
    sparsifier = _make_sparsifier(experiment, stage, model, masks, dataset, worker)
    parallel: nn.Module = model
    if worker.world_size > 1:
        parallel = DistributedDataParallel(
            model,
            device_ids=[worker.device] if worker.device.type == "cuda" else None,
            broadcast_buffers=False,  # they are averaged once an epoch instead of at each forward
        )
    optim = experiment.optim
    optimizer = make_optimizer(optim, sparsifier.parameter_groups(decay=optim.decay))
    return StageSetup(
        experiment=experiment,
        stage=stage,
        model=model,
        parallel=parallel,
        dataset=dataset,
        worker=worker,
        rates=rates,
        sparsifier=sparsifier,
        optimizer=optimizer,
        average=None if optim.ema_decay is None else start_average(model, optim.ema_decay),
        task=make_task(experiment.task, label_smoothing=experiment.label_smoothing),
    )


def loses_filters(experiment: Experiment, stage: Stage) -> bool:
    """Whether the stage trains a network without whole filters."""
    return experiment.prune.pattern == "filter" and not stage.is_dense


def num_steps_per_epoch(experiment: Experiment, dataset: Dataset) -> int:
    """Full batches in the training images; the images left over wait for another epoch."""
    return len(dataset.train) // experiment.batch_size


def _make_sparsifier(
    experiment: Experiment,
    stage: Stage,
    model: nn.Module,
    masks: Masks,
    dataset: Dataset,
    worker: Worker,
) -> Sparsifier:
    options, weight_decay = experiment.dense.sparsify, experiment.optim.weight_decay
    if options is None or not stage.is_dense:
        silenced = _silenced(experiment, stage, model, masks, dataset, worker)
        return FixedMasks(model, masks, silenced=silenced, weight_decay=weight_decay)
    return make_sparsifier(
        options,
        model,
        {name: masks[name] for name in not_ignored(masks, stage.ignore)},
        sparsity=stage.sparsity or 0.0,
        num_steps=stage.epochs * num_steps_per_epoch(experiment, dataset),
        weight_decay=weight_decay,
        seed=derive_seed(experiment.seed, "sparsifier"),
        decoupled_decay=experiment.optim.name == "adamw",
    )


def _silenced(
    experiment: Experiment,
    stage: Stage,
    model: nn.Module,
    masks: Masks,
    dataset: Dataset,
    worker: Worker,
) -> Masks:
    """What goes with a removed filter: its bias and its batch norm's channel."""
    if not loses_filters(experiment, stage):
        return {}
    example: Tensor = torch.zeros(1, *dataset.image_shape, device=worker.device)
    return channel_masks(model, {n: m.to(worker.device) for n, m in masks.items()}, example)
