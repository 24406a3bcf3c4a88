"""Numbers and names that follow from an experiment's fields."""

from __future__ import annotations

import math

from rayprune.config import Experiment

DEFAULT_DENSE_EPOCHS = 12
DEFAULT_RETRAIN_EPOCHS = 2


def dense_epochs(experiment: Experiment) -> int:
    """Epochs of the dense run, ``T`` (``T0`` under a budget); 0 if it was trained elsewhere."""
    budget = experiment.budget
    if budget is None:
        epochs = experiment.dense.epochs
        return DEFAULT_DENSE_EPOCHS if epochs is None else epochs
    if budget.dense_epochs is not None:
        return budget.dense_epochs
    assert budget.dense_share is not None
    return max(1, round(budget.dense_share * budget.epochs))


def trained_epochs(experiment: Experiment) -> int | None:
    """Epochs that the dense network was trained for, here or elsewhere; None if nobody says."""
    return experiment.dense.trained_epochs if experiment.is_brought else dense_epochs(experiment)


def dense_schedule(experiment: Experiment) -> str | None:
    """LR schedule of the dense run: stepped, or linear to 0 under a budget, unless it is named.

    None of a run elsewhere that nobody names.
    """
    if experiment.is_brought:
        return experiment.dense.schedule
    return experiment.dense.schedule or ("linear" if experiment.budget else "stepped")


def retrain_schedule(experiment: Experiment) -> str:
    """LR schedule of the cycles: ALLR, or with rewinding the dense run's own, unless it is named.

    LRW replays the dense run's last epochs. After a rewind to epoch k these are all from k on,
    where a cycle retrains for the T - k epochs that it has by default.
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
