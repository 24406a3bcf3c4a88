"""Networks measured on one worker of the cluster, while no slot runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from rayprune.config import Experiment, Measure, Scaling
from rayprune.exporting.study import Found, measure_stages

MAX_RETRIES = 8  # what was measured before a worker died is found again


def measure_on_ray(
    stages: Sequence[tuple[str, Experiment]], storage: str, how: Measure, scaling: Scaling
) -> Iterator[Found]:
    """What is measured of each stage, as it comes. Raises Ray's error if no worker stays alive."""
    task: Any = ray.remote(measure_stages)
    options: dict[str, Any] = {"label_selector": scaling.labels} if scaling.labels else {}
    found = task.options(
        num_cpus=how.threads, num_returns="streaming", max_retries=MAX_RETRIES, **options
    ).remote(stages, storage, how)
    for reference in found:
        yield ray.get(reference)
