"""A tracker beside a study: it hears everything once, and neither delays nor breaks anything."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback
from ray.tune.result import AUTO_RESULT_KEYS, DONE, EXPERIMENT_TAG, TRIAL_ID

from rayprune.distributed.tracking.runs import End, Runs, TrialRun, end_of
from rayprune.distributed.trial import FAILED, IS_FINAL
from rayprune.distributed.trial import ITERATION as STEP

NO_METRICS = {*AUTO_RESULT_KEYS, DONE, EXPERIMENT_TAG, TRIAL_ID, "should_checkpoint", IS_FINAL}
DIED = End(
    status="FAILED", reason="its Ray Tune process died again and again; start the study again"
)

log = logging.getLogger(__name__)


class Log(LoggerCallback):
    """What ours say beside what Ray's loggers say."""

    def logged(self, run: TrialRun) -> Mapping[str, float]:
        """Metric -> the last step that an earlier start has logged."""
        return {}

    def end(self, trial: Any, end: End) -> None:
        """A trial ended; it may be one that was not started, as there was nothing new to log."""
        self.log_trial_end(trial, failed=end.status == "FAILED")

    def log_files(self, trial: Any, folder: str) -> None:
        """Keep the files below a local folder with a trial that has ended."""


class Tracker(tune.Callback):
    """Tells a logger what is new, in a thread of its own; if that fails, it is off.

    Results come again when a trial's process is started again, and in a later start of the study.
    """

    def __init__(self, name: str, make: Callable[[], Log], runs: Runs) -> None:
        self.name, self._make, self._runs = name, make, runs
        self._log: Log  # from the setup on
        self._is_off = False
        self._trials: dict[str, Any] = {}  # id of a run -> the trial that it is
        self._steps: dict[str, dict[str, float]] = {}  # id of a run -> metric -> last step
        self._started: set[str] = set()
        self._calls = Calls()

    def __getstate__(self) -> dict[str, Any]:
        """What Tune writes down, for a restore that nothing here uses."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        self._soon(self._set_up)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._soon(self._meet, trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._soon(self._hear, iteration, trial, dict(result))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._soon(self._end, trial, None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._soon(self._end, trial, DIED)

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        self._soon(lambda: self._log.on_experiment_end(trials))

    def keep_files(self, trial_name: str, folder: str) -> None:
        """Keep the files below a local folder with the run of a trial that this start has met."""
        self._soon(self._keep_files, trial_name, folder)

    def finish(self, timeout_s: float) -> None:
        """Wait until all is told; a tracker that takes longer is off."""
        if not self._calls.wait(timeout_s):
            self._turn_off(TimeoutError(f"it was not told all within {timeout_s:.0f} s"))

    def _soon(self, do: Callable[..., Any], *arguments: Any) -> None:
        if not self._is_off:
            self._calls.add(partial(self._try, do, *arguments))

    def _try(self, do: Callable[..., Any], *arguments: Any) -> None:
        try:
            if not self._is_off:
                do(*arguments)
        except Exception as error:  # what only informs does not end a study
            self._turn_off(error)

    def _turn_off(self, error: Exception) -> None:
        if not self._is_off:
            self._is_off = True
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            log.warning("tracking: %s is off, the study goes on: %s", self.name, reason)

    def _set_up(self) -> None:
        self._log = self._make()
        self._log.setup()

    def _meet(self, trial: Any) -> TrialRun | None:
        """The trial's run; None for a second trial of the same values, whose results are equal."""
        run = self._runs.of(trial)
        if self._trials.setdefault(run.id, trial).trial_id != trial.trial_id:
            return None
        if run.id not in self._steps:
            self._steps[run.id] = dict(self._log.logged(run))
        return run

    def _hear(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        run = self._meet(trial)
        if run is None:
            return
        step, steps = result[STEP], self._steps[run.id]
        new = {
            name: value
            for name, value in result.items()
            if isinstance(value, int | float) and name not in NO_METRICS
            if steps.get(name, -1) < step
        }
        if new and FAILED not in result:
            self._start(run, trial)
            self._log.log_trial_result(iteration, trial, {**new, STEP: step})
            steps.update(dict.fromkeys(new, step))

    def _end(self, trial: Any, end: End | None) -> None:
        run = self._meet(trial)
        if run is None:
            return
        end = end or end_of(trial.last_result)
        if end.status == "FAILED" and not self._steps[run.id]:
            self._start(run, trial)  # without a result, it is to be seen all the same
        self._log.end(trial, end)

    def _start(self, run: TrialRun, trial: Any) -> None:
        if run.id not in self._started:
            self._started.add(run.id)
            self._log.log_trial_start(trial)

    def _keep_files(self, trial_name: str, folder: str) -> None:
        for trial in self._trials.values():
            if trial.config["trial"] == trial_name:
                self._log.log_files(trial, folder)


class Calls:
    """Calls, one after the other, in a thread that is there while there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None]) -> None:
        """Call it soon; it raises nothing."""
        with self._lock:
            self._waiting.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether all was called within that time."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                call = self._waiting.popleft()
            call()
