"""From an experiment to its stages, and from each stage to the key that names its result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayprune.config import OWN_SCHEDULES, Experiment
from rayprune.config.sparsify import shortest_run

DEFAULT_DENSE_EPOCHS = 12
DEFAULT_RETRAIN_EPOCHS = 2
METHOD_VERSION = 1  # raised when the code computes something else from equal fields


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One prune step and the training after it; stage 0 is the dense run and prunes nothing."""

    index: int
    epochs: int
    sparsity: float
    """Goal after this stage's prune step: zeros among the prunable weights, in [0, 1)."""
    schedule: str
    adapt: bool
    """Whether ALLR lowers this stage's peak learning rate; False for all other schedules."""
    key: str
    """Names the result: equal keys, equal snapshots."""
    parent: str | None
    """Key of the stage before, None for the dense run."""

    @property
    def is_dense(self) -> bool:
        return self.index == 0


def make_plan(experiment: Experiment) -> tuple[Stage, ...]:
    """The dense run and the cycles of IMP, or of BIMP when there is a budget.

    Raises ``ValueError`` where the fields contradict each other, as LRW longer than the dense run.
    """
    dense = Stage(
        index=0,
        epochs=dense_epochs(experiment),
        sparsity=sparsify_goal(experiment) or 0.0,
        schedule=dense_schedule(experiment),
        adapt=False,
        key=_digest(_dense_identity(experiment)),
        parent=None,
    )
    plan = [dense]
    sparsities = cycle_sparsities(experiment)
    for sparsity, epochs in zip(sparsities, cycle_epochs(experiment), strict=True):
        plan.append(
            _cycle(experiment, plan[-1], sparsity, epochs, last=len(plan) == len(sparsities))
        )
    _check_schedules(experiment, plan)
    return tuple(plan)


def dense_epochs(experiment: Experiment) -> int:
    """Epochs of the dense run, ``T`` (``T0`` under a budget)."""
    budget = experiment.budget
    if budget is None:
        return experiment.dense.epochs or DEFAULT_DENSE_EPOCHS
    if budget.dense_epochs is not None:
        return budget.dense_epochs
    assert budget.dense_share is not None
    return max(1, round(budget.dense_share * budget.epochs))


def dense_schedule(experiment: Experiment) -> str:
    """LR schedule of the dense run: stepped, or linear to 0 under a budget, unless it is named."""
    return experiment.dense.schedule or ("linear" if experiment.budget else "stepped")


def cycle_sparsities(experiment: Experiment) -> tuple[float, ...]:
    """Cumulative goal sparsity after each cycle, every cycle removing the same fraction.

    s = .95 in 3 cycles gives .6316, .8643, .95.
    """
    prune = experiment.prune
    keep, cycles = 1 - prune.sparsity, prune.cycles
    if prune.fraction_per_cycle is None or cycles == 0:
        steps = [1 - keep ** (k / cycles) for k in range(1, cycles)]
        return (*steps, prune.sparsity) if cycles else ()
    kept_each = 1 - prune.fraction_per_cycle
    # The small tolerance keeps a goal that is a whole number of cycles from taking one more.
    cycles = max(1, math.ceil(math.log(keep) / math.log(kept_each) - 1e-9))
    return (*(1 - kept_each**k for k in range(1, cycles)), prune.sparsity)


def cycle_epochs(experiment: Experiment) -> tuple[int, ...]:
    """Epochs of each cycle; a budget is split evenly and the last cycle takes the remainder."""
    cycles = len(cycle_sparsities(experiment))
    if experiment.budget is None:
        epochs = experiment.retrain.epochs
        return (DEFAULT_RETRAIN_EPOCHS if epochs is None else epochs,) * cycles
    left = experiment.budget.epochs - dense_epochs(experiment)
    if cycles == 0:
        return ()
    return (*(left // cycles,) * (cycles - 1), left - left // cycles * (cycles - 1))


def method_name(experiment: Experiment) -> str:
    """What the results table calls it: a sparsifier's name, bimp, imp or dense."""
    if experiment.dense.sparsify is not None:
        return experiment.dense.sparsify.method
    if experiment.prune.cycles == 0:
        return "dense"
    return "imp" if experiment.budget is None else "bimp"


def sparsify_goal(experiment: Experiment) -> float | None:
    """Goal sparsity of the method that sparsifies the dense run; None if it has none."""
    sparsify = experiment.dense.sparsify
    if sparsify is None or "sparsity" not in type(sparsify).model_fields:
        return None
    own = getattr(sparsify, "sparsity")  # noqa: B009  (not every method has the field)
    return experiment.prune.sparsity if own is None else own


def count_epochs(plans: Sequence[Sequence[Stage]]) -> dict[str, int]:
    """Epochs that the unique stages of all plans take, and that separate runs would take."""
    unique = {stage.key: stage.epochs for plan in plans for stage in plan}
    return {
        "unique_epochs": sum(unique.values()),
        "naive_epochs": sum(stage.epochs for plan in plans for stage in plan),
    }


def _cycle(
    experiment: Experiment, parent: Stage, sparsity: float, epochs: int, *, last: bool
) -> Stage:
    schedule = experiment.retrain.schedule
    adapt = schedule == "allr" and epochs > 0 and (last or experiment.allr.adapt == "every")
    prune = experiment.prune.model_dump(mode="json")
    del prune["cycles"], prune["fraction_per_cycle"]
    identity = {"parent": parent.key, **prune, "sparsity": sparsity, "epochs": epochs}
    if epochs > 0:  # a cycle without retraining has no learning rate that could matter
        identity |= {"schedule": schedule, "adapt": adapt}
        if schedule in OWN_SCHEDULES:
            identity |= {"lr": experiment.retrain.lr, "warmup": experiment.retrain.warmup or 0.0}
    return Stage(
        index=parent.index + 1,
        epochs=epochs,
        sparsity=sparsity,
        schedule=schedule if epochs > 0 else "none",
        adapt=adapt,
        key=_digest(identity),
        parent=parent.key,
    )


def _dense_identity(experiment: Experiment) -> dict[str, Any]:
    dense = experiment.dense.model_dump(mode="json")
    dense |= {"epochs": dense_epochs(experiment), "schedule": dense_schedule(experiment)}
    if dense["schedule"] != "stepped":
        del dense["milestones"], dense["factor"]
    if dense["sparsify"] is not None and "sparsity" in dense["sparsify"]:
        dense["sparsify"]["sparsity"] = sparsify_goal(experiment)
    if dense["sparsify"] is not None:  # these methods leave the ignored weights alone as they train
        dense["ignore"] = experiment.prune.ignore
    fields = experiment.model_dump(
        mode="json", include={"model", "task", "batch_size", "optim", "precision", "seed"}
    )
    # How images are fetched does not change them.
    data = experiment.data.model_dump(mode="json", exclude={"streaming", "loader_workers"})
    return {"version": METHOD_VERSION, **fields, "data": data, "dense": dense}


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def _check_schedules(experiment: Experiment, plan: list[Stage]) -> None:
    dense, cycles = plan[0], plan[1:]
    options = experiment.dense.sparsify
    if options is not None and dense.epochs < shortest_run(options):
        raise ValueError(
            f"dense.sparsify {options.method} needs a dense run of {shortest_run(options)} epochs "
            f"and more, got {dense.epochs}. Write dense.epochs: {shortest_run(options)}"
        )
    longest = max((stage.epochs for stage in cycles), default=0)
    if longest > 0 and experiment.retrain.schedule == "lrw" and longest > dense.epochs:
        raise ValueError(
            f"retrain.schedule lrw replays the dense run's last epochs: retrain.epochs must be "
            f"<= dense.epochs={dense.epochs}, got {longest}. Write {dense.epochs} or fewer, or "
            f"another schedule"
        )
    if (
        longest > 0
        and experiment.retrain.schedule == "ft"
        and dense.schedule in ("linear", "cosine")
    ):
        raise ValueError(
            f"retrain.schedule ft keeps the dense run's smallest learning rate, which is 0 after "
            f"dense.schedule {dense.schedule}. Write dense.schedule: stepped to compare schedules"
        )
