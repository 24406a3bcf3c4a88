"""Whether this machine can hold what a study asks for; known before Ray starts, and without it."""

from __future__ import annotations

import os

from rayprune.config import ConfigError, Scaling


def check_scaling(scaling: Scaling) -> None:
    """Before Ray starts on this machine: it must hold one slot. Raises ``ConfigError``."""
    if os.environ.get("RAY_ADDRESS"):
        return  # a cluster may grow, and its size is known only when it answers
    gpus, cpus = 0, os.cpu_count() or 1
    wanted_gpus = scaling.gpus_per_worker * scaling.workers
    wanted_cpus = scaling.cpus_per_worker * scaling.workers
    if wanted_gpus:
        import torch

        gpus = torch.cuda.device_count()
    if wanted_gpus > gpus:
        raise ConfigError(
            f"scaling: {scaling.workers} workers of {scaling.gpus_per_worker:g} GPUs need "
            f"{wanted_gpus:g} GPUs, this machine has {gpus}. Write scaling.gpus_per_worker=0, or "
            f"set RAY_ADDRESS to a cluster that has them"
        )
    if wanted_cpus > cpus:
        raise ConfigError(
            f"scaling: {scaling.workers} workers of {scaling.cpus_per_worker} CPUs need "
            f"{wanted_cpus} CPUs, this machine has {cpus}. Write scaling.workers={cpus}, or set "
            f"RAY_ADDRESS to a cluster that has them"
        )
