"""Keys of stages: a hash of all that determines a result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rayprune.config import Experiment
from rayprune.plan.numbers import dense_epochs, dense_schedule, sparsify_goal
from rayprune.plan.stage import Inputs
from rayprune.schedules import OWN_SCHEDULES

OF_FILTERS = {"round_channels", "couple_filters"}  # fields of prune that one pattern reads
METHOD_VERSION = 4  # raised when the code computes something else from equal fields
FILTER_VERSION = 2  # the same of pattern filter alone


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What decides the bits of a result beside the experiment's fields."""

    workers: int = 1
    """World size: each rank sums its own images, and batch norm and dropout are of a rank."""
    device: str = "cpu"
    """cpu or cuda; which GPU it was is in the record alone."""
    threads: int = 1
    """Of a worker on a CPU, which share out its sums; 0 on a GPU."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """Field that names a file or code -> fingerprint of what lies there, in place of the name."""


def dense_key(experiment: Experiment, conditions: Conditions, until: int) -> str:
    """Key of the dense run up to an epoch.

    That of its end does not say where the run was cut: its result does not depend on it.
    """
    identity = _dense_identity(experiment, conditions)
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
    retrain = experiment.retrain
    others = {"cycles", "fraction_per_cycle", "rewind", "include"}
    is_of_filters = experiment.prune.pattern == "filter"
    prune = experiment.prune.model_dump(
        mode="json", exclude=others if is_of_filters else others | OF_FILTERS
    )
    if is_of_filters:
        prune["filter_version"] = FILTER_VERSION
    identity = {"inputs": asdict(inputs), **prune, "sparsity": sparsity, "epochs": epochs}
    if epochs > 0 and experiment.is_brought:  # the measurement before it had no use for them
        identity |= {"dense": _past(experiment), **_training(experiment)}
    if epochs > 0:  # a cycle without retraining has no learning rate that could matter
        identity |= {"schedule": schedule, "adapt": adapt}
        if schedule in OWN_SCHEDULES:
            identity |= {"lr": retrain.lr, "warmup": retrain.warmup or 0.0}
    return _digest(identity)


def _dense_identity(experiment: Experiment, conditions: Conditions) -> dict[str, Any]:
    own = {"model", "data", "task", "batch_size", "precision", "seed", "recalibrate_batch_norm"}
    fields = experiment.model_dump(mode="json", include=own)
    for name in ("streaming", "loader_workers"):  # how images are fetched does not change them
        del fields["data"][name]
    for path, fingerprint in conditions.contents.items():
        _set(fields, path.split("."), fingerprint)
    where = {"workers": conditions.workers, "device": conditions.device}
    where |= {"threads": conditions.threads, "include": experiment.prune.include}
    identity = {"version": METHOD_VERSION, **where, **fields}
    if experiment.is_brought:
        return {**identity, "dense": {"epochs": 0}}
    return {**identity, "dense": _run_here(experiment), **_training(experiment)}


def _training(experiment: Experiment) -> dict[str, Any]:
    """What every step of training reads."""
    return experiment.model_dump(mode="json", include={"optim", "label_smoothing"})


def _run_here(experiment: Experiment) -> dict[str, Any]:
    dense = experiment.dense.model_dump(mode="json", exclude={"trained_epochs", "smallest_lr"})
    dense |= {"epochs": dense_epochs(experiment), "schedule": dense_schedule(experiment)}
    if dense["schedule"] != "stepped":
        del dense["milestones"], dense["factor"]
    if dense["sparsify"] is not None:
        dense["ignore"] = experiment.prune.ignore
        if "sparsity" in dense["sparsify"]:
            dense["sparsify"]["sparsity"] = sparsify_goal(experiment)
    return dense


def _past(experiment: Experiment) -> dict[str, Any]:
    """What is said of the run that trained the network elsewhere."""
    return experiment.dense.model_dump(mode="json", exclude={"epochs", "sparsify"})


def _set(fields: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        fields = fields[key]
    fields[keys[-1]] = value


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
