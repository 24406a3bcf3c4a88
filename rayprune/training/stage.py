"""One stage, trained: the DDP loop with masks, a closed-form LR schedule and epoch checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rayprune.config import Experiment, OwnTask
from rayprune.data import NUM_RANDOMS, Dataset, Split
from rayprune.plan import Stage
from rayprune.pruning.masks import Masks, apply_, digest
from rayprune.results.faults import reach
from rayprune.snapshot import Snapshot
from rayprune.sparsifiers import Sparsifier
from rayprune.training.checkpoint import (
    EpochState,
    encode_checkpoint,
    restore_checkpoint_,
    set_training_state_,
    training_state,
)
from rayprune.training.ema import WeightAverage
from rayprune.training.evaluate import evaluate, laid_out, recalibrate_batch_norm_
from rayprune.training.optimizer import clip_gradients_
from rayprune.training.order import derive_seed, epoch_order, epoch_randoms, share
from rayprune.training.rates import StageRates
from rayprune.training.record import stage_record
from rayprune.training.setup import StageSetup, set_up
from rayprune.training.worker import (
    Worker,
    all_reduce_,
    average_buffers_,
    broadcast,
    check_equal,
)


class TrainingDivergedError(ValueError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class EpochReport:
    """What is said after each epoch of a stage."""

    stage: Stage
    history: Sequence[Mapping[str, float]]
    """Metrics of each epoch of this stage so far, those before an interruption included; empty for
    an epoch of which they are not known."""
    samples_per_second: float

    @property
    def epochs_done(self) -> int:
        """Of this stage."""
        return len(self.history)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the epoch that has just ended."""
        return self.history[-1]


@dataclass(frozen=True)
class TrainedStage:
    """What a stage comes to."""

    snapshot: Snapshot
    history: Sequence[Mapping[str, float]]
    """Metrics of each epoch."""


OnEpoch = Callable[[EpochReport], bool]
"""Called by every rank. Rank 0's answer counts: False to stop after this epoch."""


def train_stage(
    experiment: Experiment,
    stage: Stage,
    start: Snapshot,
    rates: StageRates,
    *,
    model: nn.Module,
    dataset: Dataset,
    worker: Worker,
    checkpoint: bytes | None = None,
    on_epoch: OnEpoch,
    save_checkpoint: Callable[[bytes], None],
) -> TrainedStage | None:
    """Train from the weights and masks of `start`; return None if `on_epoch` said stop.

    `model` is an instance of the experiment's network, its weights are replaced. `checkpoint` is
    one of the same run, to go on from. Every rank returns the same. Raises
    ``TrainingDivergedError`` when the loss is no longer finite.
    """
    check_equal(digest(start.masks), "the masks", worker)
    model.load_state_dict(dict(start.weights))
    model.to(worker.device)
    _lay_out_(model)
    setup = set_up(experiment, stage, start.masks, rates, model, dataset, worker)
    state = _first_state(setup, start, checkpoint)
    for epoch in range(state.epochs_done, stage.last_epoch):
        reach("stage.epoch", f"rank {worker.rank}")
        seconds, train_loss = _run_epoch(setup, epoch)
        state = replace(state, epochs_done=epoch + 1, seconds=state.seconds + seconds)
        with _as_shipped(setup):
            metrics = {f"val_{k}": v for k, v in _measure(setup, dataset.val).items()}
        history = (*state.history, {**metrics, "train_loss": train_loss})
        state = replace(state, history=history)
        if worker.is_first and epoch + 1 < stage.last_epoch:
            save_checkpoint(encode_checkpoint(state, *_going_on(setup)))
        wanted = on_epoch(EpochReport(stage, history, setup.samples_per_epoch / seconds))
        if not broadcast(wanted if worker.is_first else None, worker):
            return None
    return TrainedStage(_finish(setup, start, state), state.history)


def _lay_out_(model: nn.Module) -> None:
    """Bring what is of images into channels_last order; `Module.to` would fail over a volume's."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def _first_state(setup: StageSetup, start: Snapshot, checkpoint: bytes | None) -> EpochState:
    """Where training begins: at a checkpoint of this stage, else at the stage's first epoch."""
    if checkpoint is not None:
        state = restore_checkpoint_(checkpoint, *_going_on(setup))
        done = state.epochs_done - setup.stage.first_epoch
        known = state.history[-done:]
        # A run that was cut at an epoch, and goes on uncut, knows the epochs after the cut alone.
        return replace(state, history=(*[{}] * (done - len(known)), *known))
    if setup.stage.is_dense and setup.stage.first_epoch == 0:
        return EpochState()
    if setup.stage.is_dense:
        set_training_state_(setup.model, setup.optimizer, setup.average, start.training_state)
        return EpochState(setup.stage.first_epoch, start.records[-1].seconds)
    state = EpochState(pruned=_measure_pruned(setup))
    if setup.average is not None:
        setup.average.restart_()  # measuring may have estimated batch-norm statistics anew
    return state


def _going_on(
    setup: StageSetup,
) -> tuple[nn.Module, Optimizer, Sparsifier, WeightAverage | None]:
    """What an epoch checkpoint holds and brings back."""
    return setup.model, setup.optimizer, setup.sparsifier, setup.average


@contextmanager
def _as_shipped(setup: StageSetup) -> Iterator[None]:
    """Inside, the model computes with what the stage would leave if it ended now."""
    with setup.sparsifier.shipped():
        if setup.average is None:
            yield
        else:
            with setup.average.shipped():
                yield


def _finish(setup: StageSetup, start: Snapshot, state: EpochState) -> Snapshot:
    """The stage's snapshot, measured as it is kept.

    The beginning of a dense run is no result: it keeps what the training goes on with.
    """
    model, stage = setup.model, setup.stage
    is_part = stage.part_of is not None
    training = training_state(model, setup.optimizer, setup.average) if is_part else {}
    final = {name: mask.cpu() for name, mask in setup.sparsifier.finish().items()}
    if setup.average is not None and not is_part:
        setup.average.ship_()
    masks = {**start.masks, **final}
    weights = _shipped_weights(model, masks)
    model.load_state_dict(weights)
    # A cycle without epochs is as it was just pruned.
    if not is_part and stage.epochs > 0 and _recalibrate(setup):
        weights = _shipped_weights(model, masks)
    metrics = {f"pruned_val_{k}": v for k, v in (state.pruned or {}).items()}
    for name, split in (("val", setup.dataset.val), ("test", setup.dataset.test)):
        metrics |= {f"{name}_{k}": v for k, v in _measure(setup, split).items()}
    before = tuple(record for record in start.records if record.part_of is None)
    record = stage_record(setup, masks, metrics, state)
    kept = {name: _on_cpu(tensor) for name, tensor in training.items()}
    return Snapshot(weights, masks, (*before, record), kept)


def _run_epoch(setup: StageSetup, epoch: int) -> tuple[float, float]:
    """Seconds of the training steps, and the mean training loss, of one epoch."""
    worker, cycle, seed = setup.worker, setup.stage.cycle, setup.experiment.seed
    steps, batch = setup.steps_per_epoch, setup.experiment.batch_size
    order = epoch_order(len(setup.dataset.train), batch, seed=seed, cycle=cycle, epoch=epoch)
    randoms = epoch_randoms(steps, batch, NUM_RANDOMS, seed=seed, cycle=cycle, epoch=epoch)
    batches = setup.dataset.train.batches(
        share(order, worker).unbind(), device=worker.device, randoms=share(randoms, worker).unbind()
    )
    torch.manual_seed(derive_seed(seed, cycle, epoch, worker.rank))  # dropout
    total = torch.zeros((), dtype=torch.float64, device=worker.device)
    setup.model.train()
    started = time.perf_counter()
    for step, (inputs, targets) in enumerate(batches, start=epoch * steps):
        total += _step(setup, step, laid_out(inputs), targets)
    loss = float(all_reduce_(total, worker)) / (steps * worker.world_size)  # waits for the device
    seconds = time.perf_counter() - started
    if not math.isfinite(loss):
        stage = "the dense run" if setup.stage.is_dense else f"cycle {cycle}"
        is_own = isinstance(setup.experiment.task, OwnTask)
        raise TrainingDivergedError(
            f"{stage} ({setup.stage.schedule}) diverged in epoch {epoch + 1}: the loss is {loss}. "
            f"Lower optim.lr, now {setup.experiment.optim.lr:g}, or add dense.warmup"
            + (f"; or {setup.task.name} returns what is not a number" if is_own else "")
        )
    average_buffers_(setup.model, worker)
    if setup.average is not None:
        setup.average.average_buffers_(worker)
    return seconds, loss


def _step(setup: StageSetup, step: int, inputs: Any, targets: Any) -> Tensor:
    """One step on a rank's part of a global batch; the loss, detached."""
    sparsifier, optimizer = setup.sparsifier, setup.optimizer
    for group in optimizer.param_groups:
        group["lr"] = setup.rates.schedule(step)
    sparsifier.before_forward(step)
    reduced = setup.experiment.precision == "bfloat16"
    with torch.autocast(setup.worker.device.type, torch.bfloat16, enabled=reduced):
        loss = setup.parallel(inputs, targets)
    penalty = sparsifier.penalty()
    objective = loss if penalty is None else loss + penalty
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    sparsifier.after_gradients(step)
    clip_norm = setup.experiment.optim.clip_norm
    if clip_norm is not None:
        clip_gradients_(setup.model, sparsifier.weights, sparsifier.masks, clip_norm)
    optimizer.step()
    if sparsifier.masks:
        apply_(sparsifier.weights, sparsifier.masks)
    sparsifier.after_step(step, optimizer)
    if setup.average is not None:
        setup.average.update_(step)
    return loss.detach()


def _measure(setup: StageSetup, split: Split, *, may_be_nan: bool = False) -> dict[str, float]:
    # Ours have no number only where the network has diverged, and then the loss says it.
    is_ours = not isinstance(setup.experiment.task, OwnTask)
    return evaluate(
        setup.model,
        split,
        setup.task,
        setup.local_batch,
        setup.worker,
        may_be_nan=may_be_nan or is_ours,
    )


def _measure_pruned(setup: StageSetup) -> dict[str, float]:
    """Metrics between the prune step and the retraining."""
    _recalibrate(setup)
    return _measure(setup, setup.dataset.val, may_be_nan=True)


def _recalibrate(setup: StageSetup) -> bool:
    """Estimate batch-norm statistics anew if that is asked for; return whether it is."""
    is_asked = setup.experiment.recalibrate_batch_norm
    if is_asked:
        recalibrate_batch_norm_(
            setup.model, setup.dataset.train, setup.task, setup.local_batch, setup.worker
        )
    return is_asked


def _shipped_weights(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The state_dict on the CPU in row-major order; removed weights are +0.0, not -0.0."""
    weights = {name: _on_cpu(tensor) for name, tensor in model.state_dict().items()}
    for name, mask in masks.items():
        weights[name].masked_fill_(~mask, 0.0)
    return weights


def _on_cpu(tensor: Tensor) -> Tensor:
    """A copy in row-major order."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
