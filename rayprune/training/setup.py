"""What the steps of a stage need, made once as it begins."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
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
from rayprune.training.parallel import Loss, parallelized
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
    """(inputs, targets) -> loss, behind DDP where there are several workers."""
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
    def samples_per_epoch(self) -> int:
        return self.steps_per_epoch * self.experiment.batch_size

    @property
    def local_batch(self) -> int:
        """Samples a step on this rank."""
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
    task = make_task(experiment.task, label_smoothing=experiment.label_smoothing)
    loss = Loss(model, task)
    local_batch = experiment.batch_size // worker.world_size
    trains = stage.epochs > 0
    parallel = parallelized(loss, dataset.train, worker, local_batch) if trains else loss
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
        task=task,
    )


def loses_filters(experiment: Experiment, stage: Stage) -> bool:
    """Whether the stage trains a network without whole filters."""
    return experiment.prune.pattern == "filter" and not stage.is_dense


def num_steps_per_epoch(experiment: Experiment, dataset: Dataset) -> int:
    """Full batches in the training samples; those left over wait for another epoch."""
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
    on_device = {name: mask.to(worker.device) for name, mask in masks.items()}
    return channel_masks(model, on_device, channel_example(dataset).to(worker.device))


def channel_example(dataset: Dataset) -> Tensor:
    """A batch that shows how channels run through the network."""
    example, _ = dataset.example
    if not isinstance(example, Tensor):
        raise ValueError(
            "prune.pattern filter follows channels through the network, which must take one tensor "
            f"then, got {type(example).__name__}. Write prune.pattern: unstructured"
        )
    return example
