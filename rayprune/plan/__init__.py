"""From an experiment to its stages, and from each stage to the key that names its result.

numbers.py   what follows from an experiment's fields: epochs, sparsities, schedules
stage.py     a stage as a value
keys.py      what determines a stage's result, hashed
make.py      the plan of an experiment, and of all experiments of a study
"""

from rayprune.plan.keys import Conditions
from rayprune.plan.make import make_plan, share_dense_runs
from rayprune.plan.numbers import (
    cycle_epochs,
    cycle_sparsities,
    dense_epochs,
    dense_schedule,
    method_name,
    retrain_schedule,
    sparsify_goal,
    trained_epochs,
)
from rayprune.plan.stage import EpochCount, Inputs, Stage, count_epochs, dense_run

__all__ = [
    "Conditions",
    "EpochCount",
    "Inputs",
    "Stage",
    "count_epochs",
    "cycle_epochs",
    "cycle_sparsities",
    "dense_epochs",
    "dense_run",
    "dense_schedule",
    "make_plan",
    "method_name",
    "retrain_schedule",
    "share_dense_runs",
    "sparsify_goal",
    "trained_epochs",
]
