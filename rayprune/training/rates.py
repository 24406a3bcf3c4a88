"""The learning rates of a stage, and the measured numbers that ALLR takes them from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rayprune.config import Experiment
from rayprune.plan import Stage, dense_epochs, dense_schedule
from rayprune.pruning.masks import Masks, not_ignored
from rayprune.schedules import (
    OWN_SCHEDULES,
    DenseLRs,
    Schedule,
    allr_scale,
    dense_lrs,
    own_lrs,
    retrain_lrs,
)
from rayprune.snapshot import Snapshot, norm_drop


@dataclass(frozen=True)
class StageRates:
    """A schedule, its peak, and ALLR's d1, d2 and d for every cycle (None for the dense run)."""

    schedule: Schedule
    """Step, counted from the start of the run, -> learning rate."""
    peak: float | None
    d1: float | None
    d2: float | None
    d: float | None
    """What the peak was in fact multiplied by: 1 for all but an adapting ALLR cycle."""


def dense_rates(experiment: Experiment, stage: Stage, steps_per_epoch: int) -> StageRates:
    """Learning rates of the dense run, or of a part of it."""
    schedule = _dense(experiment, steps_per_epoch).schedule
    return StageRates(schedule, _peak(schedule, stage.last_epoch * steps_per_epoch), *[None] * 3)


def cycle_rates(
    experiment: Experiment,
    stage: Stage,
    before: Snapshot,
    masks: Masks,
    parameters: Iterable[str],
    steps_per_epoch: int,
) -> StageRates:
    """Learning rates of a cycle whose prune step made `masks` from the snapshot `before`.

    `parameters` are the names of the model's parameters: batch-norm statistics, which a snapshot
    holds as well, are no part of ALLR's norm.
    """
    num_steps = stage.epochs * steps_per_epoch
    names = not_ignored(before.masks, stage.ignore)
    weights = {name: before.weights[name] for name in parameters}
    d1 = norm_drop(weights, before.masks, {name: masks[name] for name in names})
    d2 = stage.epochs / dense_epochs(experiment)
    scale = allr_scale(d1, d2) if stage.adapt else 1.0
    schedule = _cycle(experiment, stage, _dense(experiment, steps_per_epoch), num_steps, scale)
    return StageRates(schedule, _peak(schedule, num_steps), d1, d2, scale)


def _dense(experiment: Experiment, steps_per_epoch: int) -> DenseLRs:
    return dense_lrs(
        dense_schedule(experiment),
        lr=experiment.optim.lr,
        num_steps=dense_epochs(experiment) * steps_per_epoch,
        warmup=experiment.dense.warmup,
        milestones=experiment.dense.milestones,
        factor=experiment.dense.factor,
    )


def _cycle(
    experiment: Experiment, stage: Stage, dense: DenseLRs, num_steps: int, scale: float
) -> Schedule:
    retrain = experiment.retrain
    if stage.schedule not in OWN_SCHEDULES:
        return retrain_lrs(
            stage.schedule if num_steps else "ft", num_steps=num_steps, dense=dense, scale=scale
        )
    assert retrain.lr is not None
    return own_lrs(
        stage.schedule,
        lr=retrain.lr,
        num_steps=num_steps,
        warmup=retrain.warmup or 0.0,
        dense=dense,
    )


def _peak(schedule: Schedule, num_steps: int) -> float | None:
    return max(map(schedule, range(num_steps)), default=None)
