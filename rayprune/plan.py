"""From an experiment to its stages, and from each stage to the key that names its result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rayprune.config import OWN_SCHEDULES, Experiment
from rayprune.config.sparsify import Gmp, Options

DEFAULT_DENSE_EPOCHS = 12
DEFAULT_RETRAIN_EPOCHS = 2
METHOD_VERSION = 2  # raised when the code computes something else from equal fields


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Keys of the stages whose snapshots a stage takes something from."""

    weights: str | None = None
    """Whose weights it starts from; None: the initial weights of the seed."""
    masks: str | None = None
    """Whose weights and masks its prune step looks at; None: nothing was pruned before."""
    teacher: str | None = None
    """Whose outputs it learns from as well (distillation)."""
    ingredients: tuple[str, ...] = ()
    """Whose weights it averages (soups)."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key once: the stages that must be done before this one."""
        named = (self.weights, self.masks, self.teacher, *self.ingredients)
        return tuple(dict.fromkeys(key for key in named if key is not None))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One prune step and the training after it; the dense run prunes nothing."""

    cycle: int
    """0 for the dense run, 1 .. J for the prune-and-retrain cycles."""
    epochs: int
    """Epochs that this stage trains."""
    first_epoch: int = 0
    """Epochs of the same dense run that the stages before it trained; 0 for all other stages."""
    sparsity: float | None
    """Goal after this stage, in [0, 1): zeros among the prunable weights that are not ignored.
    None for a method that finds its own."""
    ignore: tuple[str, ...] = ()
    """Name patterns of prunable weights that this stage leaves alone and does not count."""
    schedule: str
    adapt: bool = False
    """Whether ALLR lowers this stage's peak learning rate; False for all other schedules."""
    key: str
    """Names the result: equal keys, equal snapshots."""
    inputs: Inputs = Inputs()
    part_of: str | None = None
    """Key of the dense run that this stage is the beginning of; None for a whole stage."""

    @property
    def is_dense(self) -> bool:
        return self.cycle == 0

    @property
    def last_epoch(self) -> int:
        """Epochs done when the stage ends, counted from the start of its run."""
        return self.first_epoch + self.epochs


@dataclass(frozen=True)
class EpochCount:
    """What sharing equal stages saves."""

    unique: int
    """Epochs of all different stages."""
    naive: int
    """Epochs that separate runs would take."""


def make_plan(experiment: Experiment, *, cut_dense_at: Collection[int] = ()) -> tuple[Stage, ...]:
    """The dense run and the cycles of IMP, or of BIMP when there is a budget, inputs first.

    The dense run ends a stage at the rewinding epoch of this experiment, and at those epochs of
    other trials that `cut_dense_at` names; its result is the same, bit for bit, wherever it is cut.
    Raises ``ValueError`` where the fields contradict each other, as LRW longer than the dense run.
    """
    _check_rewind(experiment)
    rewind = experiment.prune.rewind
    cuts = {*cut_dense_at, *([rewind.epoch] if rewind else [])}
    plan = _dense_stages(experiment, sorted(e for e in cuts if 0 < e < dense_epochs(experiment)))
    start = _rewound_to(plan, rewind.epoch) if rewind else None
    sparsities = cycle_sparsities(experiment)
    cycles = zip(sparsities, cycle_epochs(experiment), strict=True)
    for cycle, (sparsity, epochs) in enumerate(cycles, start=1):
        before = plan[-1].key
        inputs = Inputs(weights=start if rewind else before, masks=before)
        is_last = cycle == len(sparsities)
        plan.append(_cycle(experiment, cycle, inputs, sparsity, epochs, is_last=is_last))
    _check_schedules(experiment, plan)
    return tuple(plan)


def share_dense_runs(experiments: Sequence[Experiment]) -> list[tuple[Stage, ...]]:
    """A plan for each experiment, in which equal dense runs are cut at the same epochs.

    So every epoch of a dense run is run once, also where only some of its trials rewind to one.
    """
    plans = [make_plan(experiment) for experiment in experiments]
    cuts: dict[str, set[int]] = {}
    for plan in plans:
        for stage in plan:
            if stage.part_of is not None:
                cuts.setdefault(stage.part_of, set()).add(stage.last_epoch)
    return [
        make_plan(experiment, cut_dense_at=cuts[dense.key]) if dense.key in cuts else plan
        for experiment, plan in zip(experiments, plans, strict=True)
        for dense in [dense_run(plan)]
    ]


def dense_run(plan: Sequence[Stage]) -> Stage:
    """The stage with which the dense run ends."""
    return next(stage for stage in plan if stage.is_dense and stage.part_of is None)


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


def retrain_schedule(experiment: Experiment) -> str:
    """LR schedule of the cycles: ALLR, or with rewinding the dense run's own, unless it is named.

    LRW replays the dense run's last epochs; after a rewind to epoch k these are all from k on.
    """
    return experiment.retrain.schedule or ("lrw" if experiment.prune.rewind else "allr")


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
    """Epochs of each cycle; a budget is split evenly and the last cycle takes the remainder.

    Without a budget and a number, rewinding retrains for the dense epochs after its own.
    """
    cycles, epochs = len(cycle_sparsities(experiment)), experiment.retrain.epochs
    if experiment.budget is None:
        rewind = experiment.prune.rewind
        usual = dense_epochs(experiment) - rewind.epoch if rewind else DEFAULT_RETRAIN_EPOCHS
        return (usual if epochs is None else epochs,) * cycles
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
    """Goal sparsity of the dense run: its method's own, else the experiment's.

    0 for a plain dense run, None for a method that finds its own.
    """
    sparsify = experiment.dense.sparsify
    if sparsify is None:
        return 0.0
    if "sparsity" not in type(sparsify).model_fields:
        return None
    own = getattr(sparsify, "sparsity")  # noqa: B009  (not every method has the field)
    return experiment.prune.sparsity if own is None else own


def shortest_run(options: Options) -> int:
    """Epochs that a method's run must have at least: GMP prunes once and trains on after it."""
    return 2 * (options.interval or 1) if isinstance(options, Gmp) else 1


def count_epochs(plans: Iterable[Sequence[Stage]]) -> EpochCount:
    """Epochs of the plans' unique stages, and those of separate runs."""
    stages = [stage for plan in plans for stage in plan]
    unique = {stage.key: stage.epochs for stage in stages}
    return EpochCount(sum(unique.values()), sum(stage.epochs for stage in stages))


def _dense_stages(experiment: Experiment, cuts: Sequence[int]) -> list[Stage]:
    """The dense run as stages that end at `cuts` and at its end; each goes on from the one before.

    The last one's key does not say where the run was cut: its result does not depend on it.
    """
    assert not cuts or experiment.dense.sparsify is None, "methods that sparsify run as a whole"
    identity, end = _dense_identity(experiment), dense_epochs(experiment)
    whole = _digest(identity)
    stages: list[Stage] = []
    for first, last in pairwise([0, *cuts, end]):
        before = stages[-1].key if stages else None
        stage = Stage(
            cycle=0,
            epochs=last - first,
            first_epoch=first,
            sparsity=sparsify_goal(experiment),
            # These methods leave the ignored weights alone as they train. A plain dense run has no
            # use for the patterns, and trials that ignore other weights share it.
            ignore=experiment.prune.ignore if experiment.dense.sparsify else (),
            schedule=dense_schedule(experiment),
            key=whole if last == end else _digest({**identity, "until": last}),
            inputs=Inputs(weights=before, masks=before),
            part_of=None if last == end else whole,
        )
        stages.append(stage)
    return stages


def _rewound_to(dense: Sequence[Stage], epoch: int) -> str | None:
    """Key of the stage that ends at that epoch; None for the initial weights."""
    return next((stage.key for stage in dense if stage.last_epoch == epoch), None)


def _cycle(
    experiment: Experiment,
    cycle: int,
    inputs: Inputs,
    sparsity: float,
    epochs: int,
    *,
    is_last: bool,
) -> Stage:
    schedule, dense = retrain_schedule(experiment), experiment.dense
    adapt = schedule == "allr" and epochs > 0 and (is_last or experiment.allr.adapt == "every")
    prune = experiment.prune.model_dump(
        mode="json", exclude={"cycles", "fraction_per_cycle", "rewind"}
    )
    identity = {"inputs": asdict(inputs), **prune, "sparsity": sparsity, "epochs": epochs}
    if epochs > 0:  # a cycle without retraining has no learning rate that could matter
        identity |= {"schedule": schedule, "adapt": adapt}
        if schedule in OWN_SCHEDULES:
            identity |= {"lr": experiment.retrain.lr, "warmup": experiment.retrain.warmup or 0.0}
        if schedule == "stepped":
            identity |= {"milestones": dense.milestones, "factor": dense.factor}
    return Stage(
        cycle=cycle,
        epochs=epochs,
        sparsity=sparsity,
        ignore=experiment.prune.ignore,
        schedule=schedule if epochs > 0 else "none",
        adapt=adapt,
        key=_digest(identity),
        inputs=inputs,
    )


def _dense_identity(experiment: Experiment) -> dict[str, Any]:
    dense = experiment.dense.model_dump(mode="json")
    dense |= {"epochs": dense_epochs(experiment), "schedule": dense_schedule(experiment)}
    if dense["schedule"] != "stepped":
        del dense["milestones"], dense["factor"]
    if dense["sparsify"] is not None:
        dense["ignore"] = experiment.prune.ignore
        if "sparsity" in dense["sparsify"]:
            dense["sparsify"]["sparsity"] = sparsify_goal(experiment)
    fields = experiment.model_dump(
        mode="json", include={"model", "task", "batch_size", "optim", "precision", "seed"}
    )
    # How images are fetched does not change them.
    data = experiment.data.model_dump(mode="json", exclude={"streaming", "loader_workers"})
    return {"version": METHOD_VERSION, **fields, "data": data, "dense": dense}


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def _check_rewind(experiment: Experiment) -> None:
    rewind, end = experiment.prune.rewind, dense_epochs(experiment)
    if rewind is not None and rewind.epoch >= end:
        raise ValueError(
            f"prune.rewind.epoch must be < the dense run's {end} epochs, got {rewind.epoch}. "
            f"Write {end - 1} or less, or leave prune.rewind out to retrain from the end"
        )


def _check_schedules(experiment: Experiment, plan: list[Stage]) -> None:
    dense, cycles = dense_run(plan), [stage for stage in plan if not stage.is_dense]
    options, end = experiment.dense.sparsify, dense.last_epoch
    if options is not None and end < shortest_run(options):
        raise ValueError(
            f"dense.sparsify {options.method} needs a dense run of {shortest_run(options)} epochs "
            f"and more, got {end}. Write dense.epochs: {shortest_run(options)}"
        )
    longest = max((stage.epochs for stage in cycles), default=0)
    schedule = retrain_schedule(experiment) if longest > 0 else "none"
    if schedule == "lrw" and longest > end:
        raise ValueError(
            f"retrain.schedule lrw replays the dense run's last epochs: retrain.epochs must be "
            f"<= dense.epochs={end}, got {longest}. Write {end} or fewer, or another schedule"
        )
    if schedule == "ft" and dense.schedule in ("linear", "cosine"):
        raise ValueError(
            f"retrain.schedule ft keeps the dense run's smallest learning rate, which is 0 after "
            f"dense.schedule {dense.schedule}. Write dense.schedule: stepped to compare schedules"
        )
