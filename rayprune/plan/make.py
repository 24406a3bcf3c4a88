"""From an experiment to its stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

from rayprune.config import Experiment
from rayprune.plan.keys import Conditions, cycle_key, dense_key
from rayprune.plan.numbers import (
    cycle_epochs,
    cycle_sparsities,
    dense_epochs,
    dense_schedule,
    retrain_schedule,
    sparsify_goal,
    trained_epochs,
)
from rayprune.plan.stage import Inputs, Stage, dense_run

ALONE = Conditions()


def make_plan(
    experiment: Experiment, conditions: Conditions = ALONE, *, cut_dense_at: Collection[int] = ()
) -> tuple[Stage, ...]:
    """The dense run and the cycles of IMP, or of BIMP when there is a budget, inputs first.

    The dense run ends a stage at the rewinding epoch of this experiment, and at those epochs of
    other trials that `cut_dense_at` names; its result is the same, bit for bit, wherever it is cut.
    `conditions` are those that the stages will run under: keys depend on them, and nothing else.
    Raises ``ValueError`` where the fields contradict each other, as LRW longer than the dense run.
    """
    _check_rewind(experiment)
    rewind = experiment.prune.rewind
    cuts = {*cut_dense_at, *([rewind.epoch] if rewind else [])}
    inside = sorted(e for e in cuts if 0 < e < dense_epochs(experiment))
    plan = _dense_stages(experiment, conditions, inside)
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


def share_dense_runs(
    experiments: Sequence[Experiment],
    conditions: Callable[[Experiment], Conditions] = lambda experiment: ALONE,
) -> list[tuple[Stage, ...]]:
    """A plan for each experiment, in which equal dense runs are cut at the same epochs.

    So every epoch of a dense run is run once, also where only some of its trials rewind to one.
    """
    given = [conditions(experiment) for experiment in experiments]
    plans = list(map(make_plan, experiments, given))
    cuts: dict[str, set[int]] = {}
    for plan in plans:
        for stage in plan:
            if stage.part_of is not None:
                cuts.setdefault(stage.part_of, set()).add(stage.last_epoch)
    return [
        make_plan(experiment, own, cut_dense_at=cuts[dense.key]) if dense.key in cuts else plan
        for experiment, own, plan in zip(experiments, given, plans, strict=True)
        for dense in [dense_run(plan)]
    ]


def _dense_stages(
    experiment: Experiment, conditions: Conditions, cuts: Sequence[int]
) -> list[Stage]:
    """The dense run as stages that end at `cuts` and at its end, each going on from another."""
    assert not cuts or experiment.dense.sparsify is None, "methods that sparsify run as a whole"
    end = dense_epochs(experiment)
    whole = dense_key(experiment, conditions, end)
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
            schedule=(dense_schedule(experiment) or "none") if end else "none",
            key=dense_key(experiment, conditions, last),
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
    schedule = retrain_schedule(experiment)
    adapt = schedule == "allr" and epochs > 0 and (is_last or experiment.allr.adapt == "every")
    return Stage(
        cycle=cycle,
        epochs=epochs,
        sparsity=sparsity,
        ignore=experiment.prune.ignore,
        schedule=schedule if epochs > 0 else "none",
        adapt=adapt,
        key=cycle_key(
            experiment, inputs, sparsity=sparsity, epochs=epochs, schedule=schedule, adapt=adapt
        ),
        inputs=inputs,
    )


def _check_rewind(experiment: Experiment) -> None:
    rewind, end = experiment.prune.rewind, dense_epochs(experiment)
    if rewind is not None and rewind.epoch >= end:
        raise ValueError(
            f"prune.rewind.epoch must be < the dense run's {end} epochs, got {rewind.epoch}. "
            f"Write {end - 1} or less, or leave prune.rewind out to retrain from the end"
        )


def _check_schedules(experiment: Experiment, plan: list[Stage]) -> None:
    longest = max((stage.epochs for stage in plan if not stage.is_dense), default=0)
    if longest == 0:
        return
    schedule, dense = retrain_schedule(experiment), dense_schedule(experiment)
    if experiment.is_brought:
        _check_past_is_said(experiment, schedule)
    end = trained_epochs(experiment)
    if schedule == "lrw" and end is not None and longest > end:
        field = "dense.trained_epochs" if experiment.is_brought else "dense.epochs"
        raise ValueError(
            f"retrain.schedule lrw replays the dense run's last epochs: retrain.epochs must be "
            f"<= {field}={end}, got {longest}. Write {end} or fewer, or another schedule"
        )
    if schedule == "ft" and dense in ("linear", "cosine") and experiment.dense.smallest_lr is None:
        instead = (
            "Add dense.smallest_lr"
            if experiment.is_brought
            else "Write dense.schedule: stepped to compare schedules"
        )
        raise ValueError(
            f"retrain.schedule ft keeps the dense run's smallest learning rate, which is 0 after "
            f"dense.schedule {dense}. {instead}"
        )


def _check_past_is_said(experiment: Experiment, schedule: str) -> None:
    """Of a network that was trained elsewhere, what a schedule needs to know of its training."""
    dense, optim = experiment.dense, experiment.optim
    missing = [f"dense.{f}" for f in ("schedule", "trained_epochs") if getattr(dense, f) is None]
    if schedule in ("ft", "clr") and missing and dense.smallest_lr is None:
        does = "keeps" if schedule == "ft" else "falls to"
        raise ValueError(
            f"retrain.schedule {schedule} {does} the smallest learning rate that the network was "
            f"trained with, which nothing says. Add dense.smallest_lr"
        )
    if schedule in ("lrw", "slr", "stepped") and missing:
        does = "replays" if schedule == "lrw" else "resamples"
        raise ValueError(
            f"retrain.schedule {schedule} {does} the learning rates that the network was trained "
            f"with. Add {' and '.join(missing)}, and optim.lr, the largest"
        )
    if schedule in ("lrw", "slr", "clr", "llr", "allr") and "lr" not in optim.model_fields_set:
        raise ValueError(
            f"retrain.schedule {schedule} goes by the largest learning rate that the network was "
            f"trained with, which nothing says. Add optim.lr"
        )
