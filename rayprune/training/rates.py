"""The learning rates of a stage, and the measured numbers that ALLR takes them from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rayprune.config import Experiment
from rayprune.plan import Stage, dense_schedule, trained_epochs
from rayprune.pruning.masks import Masks, not_ignored
from rayprune.schedules import (
    OWN_SCHEDULES,
    DenseLRs,
    Schedule,
    allr_scale,
    constant,
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
    """None also where nobody says how long a network was trained elsewhere."""
    d: float | None
    """What the peak was in fact multiplied by: 1 for all but an adapting ALLR cycle."""


def dense_rates(experiment: Experiment, stage: Stage, steps_per_epoch: int) -> StageRates:
    """Learning rates of the dense run, or of a part of it; none of a network that is brought."""
    if experiment.is_brought:
        return StageRates(constant(0.0), *[None] * 4)
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
    trained = trained_epochs(experiment)
    d2 = 0.0 if stage.epochs == 0 else stage.epochs / trained if trained else None
    scale = allr_scale(d1, d2 or 0.0) if stage.adapt else 1.0
    schedule = _cycle(experiment, stage, _dense(experiment, steps_per_epoch), num_steps, scale)
    return StageRates(schedule, _peak(schedule, num_steps), d1, d2, scale)


def _dense(experiment: Experiment, steps_per_epoch: int) -> DenseLRs:
    """The schedule of the dense run, here or elsewhere.

    Where too little is said of it, no schedule asks for more than its largest and smallest rates.
    """
    name, epochs = dense_schedule(experiment), trained_epochs(experiment)
    if name is None or epochs is None:
        largest = constant(experiment.optim.lr)
        return DenseLRs(largest, 1, 0, given_smallest=experiment.dense.smallest_lr)
    known = dense_lrs(
        name,
        lr=experiment.optim.lr,
        num_steps=epochs * steps_per_epoch,
        warmup=experiment.dense.warmup,
        milestones=experiment.dense.milestones,
        factor=experiment.dense.factor,
    )
    return replace(known, given_smallest=experiment.dense.smallest_lr)


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
