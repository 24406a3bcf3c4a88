"""TensorBoard's events of every trial, in the study's folder."""

from __future__ import annotations

import time
from math import isfinite
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from rayprune.distributed.tracking.runs import Runs
from rayprune.distributed.tracking.tracker import Log
from rayprune.results.files import tensorboard_file
from rayprune.results.storage import write_bytes

COPY_EVERY_S = 30.0


class TensorBoard(TBXLoggerCallback, Log):
    """Ray's, which writes to a scratch folder; whole files are copied from there.

    A bucket takes no appended bytes, and a file of a fixed name is replaced where a later start of
    the study tells everything again.
    """

    def __init__(self, runs: Runs, scratch: str) -> None:
        super().__init__()
        self._runs, self._scratch = runs, Path(scratch) / "tensorboard"
        self._copied_s: dict[Any, float] = {}  # trial that has not ended -> when it was copied

    def log_trial_start(self, trial: Any) -> None:
        self._trial_writer[trial] = self._summary_writer_cls(str(self._local(trial)))
        self._trial_result[trial] = {}
        self._copied_s[trial] = time.monotonic()

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        # A network without weights has an endless speed-up: no point of a curve, but a complaint.
        finite = {n: v for n, v in result.items() if not isinstance(v, float) or isfinite(v)}
        super().log_trial_result(iteration, trial, finite)
        if time.monotonic() - self._copied_s[trial] >= COPY_EVERY_S:
            self._copy(trial)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        super().log_trial_end(trial, failed)
        if trial in self._copied_s:
            self._copy(trial)
            del self._copied_s[trial]

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        for trial in self._copied_s:
            self._trial_writer[trial].close()  # a flush alone may leave the last result out
            self._copy(trial)

    def _copy(self, trial: Any) -> None:
        (file,) = self._local(trial).iterdir()
        name = self._runs.of(trial).name
        write_bytes(tensorboard_file(self._runs.folder, name), file.read_bytes())
        self._copied_s[trial] = time.monotonic()

    def _local(self, trial: Any) -> Path:
        return self._scratch / self._runs.of(trial).id
