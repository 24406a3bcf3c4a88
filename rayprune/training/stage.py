"""One stage, trained: the DDP loop with masks, a closed-form LR schedule and epoch checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from rayprune.config import Experiment
from rayprune.config.sparsify import Options
from rayprune.data import NUM_RANDOMS, Dataset, Split
from rayprune.plan import Stage, sparsify_goal
from rayprune.pruning.allocation import emptied_layers
from rayprune.pruning.masks import Masks, apply_, digest, not_ignored, sparsity
from rayprune.pruning.structured import channel_masks
from rayprune.results.record import StageRecord
from rayprune.snapshot.encoding import Snapshot
from rayprune.sparsifiers import Sparsifier, make_sparsifier
from rayprune.sparsifiers.base import zero_
from rayprune.training.checkpoint import Progress, encode_progress, restore_progress_
from rayprune.training.evaluate import evaluate, laid_out, recalibrate_batch_norm_
from rayprune.training.network import network_cost
from rayprune.training.order import derive_seed, epoch_order, epoch_randoms, share
from rayprune.training.rates import StageRates, stage_rates
from rayprune.training.task import TASKS, Task
from rayprune.training.worker import Worker, average_buffers_, check_equal, from_first, sum_


class TrainingDivergedError(ValueError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class EpochReport:
    """What rank 0 says after each epoch of a stage."""

    stage: Stage
    epochs_done: int
    metrics: Mapping[str, float]
    images_per_second: float


@dataclass(frozen=True)
class Hooks:
    """How a stage talks to whoever runs it; rank 0 alone calls them."""

    on_epoch: Callable[[EpochReport], bool] = lambda report: True
    """False ends the stage after this epoch: nobody wants it any more."""
    save_progress: Callable[[bytes], None] = lambda content: None
    """Keeps an epoch checkpoint."""


def train_stage(
    experiment: Experiment,
    stage: Stage,
    before: Snapshot,
    pruned: Snapshot,
    *,
    model: nn.Module,
    dataset: Dataset,
    worker: Worker,
    progress: bytes | None = None,
    hooks: Hooks = Hooks(),
) -> Snapshot | None:
    """Train from `pruned`, the prune step's result on `before`; None if nobody wants it any more.

    `model` is an instance of the experiment's network, its weights are replaced. `progress` is an
    epoch checkpoint of this stage to go on from. Every rank gets the same snapshot. Raises
    ``TrainingDivergedError`` when the loss is no longer finite.
    """
    check_equal(digest(pruned.masks), "the masks", worker)
    model.load_state_dict(dict(pruned.weights))
    model.to(worker.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = _prepare(experiment, stage, before, pruned, model, dataset, worker)
    if progress is not None:
        done = restore_progress_(progress, model, training.optimizer, training.sparsifier)
    else:
        done = Progress(pruned=None if stage.is_dense else _measure_pruned(training))
    for epoch in range(done.epochs_done, stage.epochs):
        seconds, train_loss = _run_epoch(training, epoch)
        done = replace(done, epochs_done=epoch + 1, seconds=done.seconds + seconds)
        with training.sparsifier.shipped():
            metrics = {f"val_{k}": v for k, v in _measure(training, dataset.val).items()}
        wanted = True
        if worker.is_first:
            if epoch + 1 < stage.epochs:
                hooks.save_progress(
                    encode_progress(done, model, training.optimizer, training.sparsifier)
                )
            speed = training.images_per_epoch / seconds
            metrics["train_loss"] = train_loss
            wanted = hooks.on_epoch(EpochReport(stage, epoch + 1, metrics, speed))
        if not from_first(wanted, worker):
            return None
    final = {name: mask.cpu() for name, mask in training.sparsifier.finish().items()}
    masks = {**pruned.masks, **final}
    weights = _shipped_weights(model, masks)
    model.load_state_dict(weights)  # measured is what is kept
    metrics = {f"pruned_val_{k}": v for k, v in (done.pruned or {}).items()}
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        metrics |= {f"{name}_{k}": v for k, v in _measure(training, split).items()}
    record = _record(training, masks, metrics, done)
    return Snapshot(weights, masks, (*pruned.records, record))


@dataclass(frozen=True)
class _Training:
    """What the steps of a stage need, made once as it begins."""

    experiment: Experiment
    stage: Stage
    model: nn.Module
    parallel: nn.Module
    """The model behind DDP; the model itself on a single worker."""
    dataset: Dataset
    worker: Worker
    rates: StageRates
    sparsifier: Sparsifier
    optimizer: SGD
    task: Task
    steps_per_epoch: int

    @property
    def images_per_epoch(self) -> int:
        return self.steps_per_epoch * self.experiment.batch_size

    @property
    def local_batch(self) -> int:
        return self.experiment.batch_size // self.worker.world_size


def _prepare(
    experiment: Experiment,
    stage: Stage,
    before: Snapshot,
    pruned: Snapshot,
    model: nn.Module,
    dataset: Dataset,
    worker: Worker,
) -> _Training:
    """Sparsifier, then DDP, then optimiser: each sees the parameters that the one before made."""
    steps_per_epoch = len(dataset.train) // experiment.batch_size
    rates = stage_rates(experiment, stage, before, pruned, model, steps_per_epoch)
    example = torch.zeros(1, *dataset.image_shape, device=worker.device)
    sparsifier = _make_sparsifier(experiment, stage, model, pruned.masks, example, steps_per_epoch)
    parallel: nn.Module = model
    if worker.world_size > 1:
        parallel = DistributedDataParallel(
            model,
            device_ids=[worker.device] if worker.device.type == "cuda" else None,
            broadcast_buffers=False,  # they are averaged once an epoch instead of at each forward
        )
    optim = experiment.optim
    optimizer = SGD(
        sparsifier.parameter_groups(decay=optim.decay),
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.weight_decay > 0 and optim.momentum > 0,
        fused=True,
    )
    return _Training(
        experiment=experiment,
        stage=stage,
        model=model,
        parallel=parallel,
        dataset=dataset,
        worker=worker,
        rates=rates,
        sparsifier=sparsifier,
        optimizer=optimizer,
        task=TASKS[experiment.task],
        steps_per_epoch=steps_per_epoch,
    )


class _FixedMasks(Sparsifier):
    """Retraining, and a plain dense run: the masks that the prune step made, unchanged.

    `silenced` are masks of what else belongs to a removed filter: its bias, its batch norm.
    """

    def __init__(
        self, model: nn.Module, masks: Masks, silenced: Masks, weight_decay: float
    ) -> None:
        fixed = {**masks, **silenced}
        super().__init__(
            Options(),
            model,
            fixed,
            sparsity=0.0,
            num_steps=0,
            steps_per_epoch=1,
            weight_decay=weight_decay,
            seed=0,
        )
        # Laid out as their weights, or the fused multiply would have to reorder channels_last.
        self.fixed = {
            name: torch.empty_like(weight, dtype=torch.bool).copy_(fixed[name])
            for name, weight in self.weights.items()
        }
        self.pruned = {name: mask for name, mask in self.fixed.items() if not mask.all()}
        self.result = masks
        zero_(self.weights, self.fixed)

    @property
    def masks(self) -> Masks:
        return self.pruned

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        yield self.result  # the weights are masked at every step

    def finish(self) -> Masks:
        zero_(self.weights, self.fixed)
        return self.result


def _make_sparsifier(
    experiment: Experiment,
    stage: Stage,
    model: nn.Module,
    masks: Masks,
    example: Tensor,
    steps_per_epoch: int,
) -> Sparsifier:
    options, weight_decay = experiment.dense.sparsify, experiment.optim.weight_decay
    if options is None or not stage.is_dense:
        silenced: Masks = {}
        if experiment.prune.pattern == "filter" and not stage.is_dense:
            on_device = {name: mask.to(example.device) for name, mask in masks.items()}
            silenced = channel_masks(model, on_device, example)
        return _FixedMasks(model, masks, silenced, weight_decay)
    return make_sparsifier(
        options,
        model,
        {name: masks[name] for name in not_ignored(masks, experiment.prune.ignore)},
        sparsity=sparsify_goal(experiment) or 0.0,
        num_steps=stage.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        weight_decay=weight_decay,
        seed=derive_seed(experiment.seed, "sparsifier"),
    )


def _run_epoch(training: _Training, epoch: int) -> tuple[float, float]:
    """Seconds of the training steps, and the mean training loss, of one epoch."""
    worker, stage, seed = training.worker, training.stage.index, training.experiment.seed
    steps, batch = training.steps_per_epoch, training.experiment.batch_size
    order = epoch_order(len(training.dataset.train), batch, seed=seed, stage=stage, epoch=epoch)
    randoms = epoch_randoms(steps, batch, NUM_RANDOMS, seed=seed, stage=stage, epoch=epoch)
    batches = training.dataset.train.batches(
        share(order, worker).unbind(), device=worker.device, randoms=share(randoms, worker).unbind()
    )
    torch.manual_seed(derive_seed(seed, stage, epoch, worker.rank))  # dropout
    total = torch.zeros((), dtype=torch.float64, device=worker.device)
    training.model.train()
    started = time.perf_counter()
    for step, (inputs, targets) in enumerate(batches, start=epoch * steps):
        total += _step(training, step, laid_out(inputs), targets)
    loss = float(sum_(total, worker)) / (steps * worker.world_size)  # waits for the device
    seconds = time.perf_counter() - started
    if not math.isfinite(loss):
        raise TrainingDivergedError(
            f"stage {stage} ({training.stage.schedule}) diverged in epoch {epoch + 1}: the loss is "
            f"{loss}. Lower optim.lr, now {training.experiment.optim.lr:g}, or add dense.warmup"
        )
    average_buffers_(training.model, worker)
    return seconds, loss


def _step(training: _Training, step: int, inputs: Tensor, targets: Tensor) -> Tensor:
    """One step on a rank's part of a global batch; the loss, detached."""
    sparsifier, optimizer = training.sparsifier, training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = training.rates.schedule(step)
    sparsifier.before_forward(step)
    reduced = training.experiment.precision == "bfloat16"
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=reduced):
        loss = training.task.loss(training.parallel(inputs), targets)
    penalty = sparsifier.penalty()
    objective = loss if penalty is None else loss + penalty
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    sparsifier.after_gradients(step)
    optimizer.step()
    if sparsifier.masks:
        apply_(sparsifier.weights, sparsifier.masks)
    sparsifier.after_step(step, optimizer)
    return loss.detach()


def _measure(training: _Training, split: Split) -> dict[str, float]:
    return evaluate(training.model, split, training.task, training.local_batch, training.worker)


def _measure_pruned(training: _Training) -> dict[str, float]:
    """Metrics between the prune step and the retraining."""
    if training.experiment.prune.recalibrate_batch_norm:
        recalibrate_batch_norm_(
            training.model, training.dataset.train, training.local_batch, training.worker
        )
    return _measure(training, training.dataset.val)


def _shipped_weights(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The state_dict on the CPU in row-major order; removed weights are +0.0, not -0.0."""
    weights = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    for name, mask in masks.items():
        weights[name].masked_fill_(~mask, 0.0)
    return weights


def _record(
    training: _Training, masks: Masks, metrics: Mapping[str, float], done: Progress
) -> StageRecord:
    experiment, stage, rates = training.experiment, training.stage, training.rates
    finds_its_own = (
        stage.is_dense and experiment.dense.sparsify and sparsify_goal(experiment) is None
    )
    is_plain = stage.is_dense and experiment.dense.sparsify is None
    # Trials that ignore other weights share a plain dense run: no pattern is its own.
    ignore = () if is_plain else experiment.prune.ignore
    counted = {name: masks[name] for name in not_ignored(masks, ignore)}
    num_images = training.images_per_epoch * stage.epochs
    # Sparsity counts what may be pruned; the other numbers are of the whole network.
    cost = vars(network_cost(experiment, training.dataset, masks)) | {"sparsity": sparsity(counted)}
    recalibrated = experiment.prune.recalibrate_batch_norm and not stage.is_dense
    return StageRecord(
        key=stage.key,
        parent=stage.parent,
        stage=stage.index,
        epochs=stage.epochs,
        schedule=stage.schedule,
        lr_peak=rates.peak,
        d1=rates.d1,
        d2=rates.d2,
        d=rates.d,
        goal_sparsity=None if finds_its_own else stage.sparsity,
        metrics=metrics,
        emptied_layers=tuple(emptied_layers(masks)),
        batch_norm="recalibrated" if recalibrated else "as trained",
        seconds=done.seconds,
        images_per_second=num_images / done.seconds if done.seconds else 0.0,
        workers=training.worker.world_size,
        **cost,
    )
