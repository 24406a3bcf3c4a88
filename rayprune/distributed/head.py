"""Processes that take no CPU and live beside the driver, on the node that does not go away."""

from __future__ import annotations

from typing import Any

import ray

# Ray would put what takes no CPU on workers, but those come and go.
ON_HEAD = {"node:__internal_head__": 0.001}


def start(service: type, *arguments: Any, max_concurrency: int = 1) -> Any:
    """Start an actor; return its handle.

    If its process dies, Ray starts it again with the same arguments, and asks it again what was
    not answered.
    """
    actor: Any = ray.remote(service)
    options = actor.options(
        num_cpus=0,
        resources=ON_HEAD,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=max_concurrency,
    )
    return options.remote(*arguments)
