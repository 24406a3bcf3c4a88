"""Keys of stages: a hash of all that determines a result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from rayprune.config import Experiment
from rayprune.plan.numbers import dense_epochs, dense_schedule, sparsify_goal
from rayprune.plan.stage import Inputs
from rayprune.schedules import OWN_SCHEDULES

METHOD_VERSION = 3  # raised when the code computes something else from equal fields


def dense_key(experiment: Experiment, until: int) -> str:
    """Key of the dense run up to an epoch.

    That of its end does not say where the run was cut: its result does not depend on it.
    """
    identity = _dense_identity(experiment)
    return _digest(identity if until == dense_epochs(experiment) else {**identity, "until": until})


def cycle_key(
    experiment: Experiment,
    inputs: Inputs,
    *,
    sparsity: float,
    epochs: int,
    schedule: str,
    adapt: bool,
) -> str:
    """Key of a cycle; what came before it speaks through the keys of its inputs."""
    retrain, dense = experiment.retrain, experiment.dense
    prune = experiment.prune.model_dump(
        mode="json", exclude={"cycles", "fraction_per_cycle", "rewind"}
    )
    identity = {"inputs": asdict(inputs), **prune, "sparsity": sparsity, "epochs": epochs}
    if epochs > 0:  # a cycle without retraining has no learning rate that could matter
        identity |= {"schedule": schedule, "adapt": adapt}
        if schedule in OWN_SCHEDULES:
            identity |= {"lr": retrain.lr, "warmup": retrain.warmup or 0.0}
        if schedule == "stepped":
            identity |= {"milestones": dense.milestones, "factor": dense.factor}
    return _digest(identity)


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
