"""Networks measured on one worker of the cluster, while no slot runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import ray

from rayprune.exporting.study import Found, keep_measured, measure_stages
from rayprune.results.progress import StudyProgress
from rayprune.results.recorder import Recorder

MAX_RETRIES = 8  # what was measured before a worker died is found again

log = logging.getLogger(__name__)


def measure_on_ray(
    recorder: Recorder, progress: StudyProgress, on_progress: Callable[[StudyProgress], None]
) -> None:
    """Measure what is not measured yet, and tell of each network as it comes.

    Where no worker stays alive, a warning says so; the next start measures the rest.
    """
    try:
        keep_measured(recorder, _measured(recorder), progress, on_progress)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[0]
        log.warning("not all networks were measured, the next start goes on: %s", reason)


def _measured(recorder: Recorder) -> Iterator[Found]:
    how, labels = recorder.study.search.measure, recorder.study.scaling.labels
    assert how is not None
    stages = [(key, trial.experiment) for key, trial in recorder.unmeasured]
    options: dict[str, Any] = {"label_selector": labels} if labels else {}
    task: Any = ray.remote(measure_stages)
    found = task.options(
        num_cpus=how.threads, num_returns="streaming", max_retries=MAX_RETRIES, **options
    ).remote(stages, recorder.storage, how)
    for reference in found:
        yield ray.get(reference)
