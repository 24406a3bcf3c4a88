"""How long a running study still takes."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.plan import Stage
from rayprune.results.progress import StageProgress, StudyProgress

LEAST_EPOCHS = 4  # to be measured before anything is said: the first one warms up


class Estimate:
    """Seconds left, from what an epoch has taken a running stage since the first one was done.

    The epochs that are left are shared by the stages that can run at the same time, but a chain of
    stages that need each other takes its own length at least.
    """

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self._stages = stages
        self._last_s: float | None = None
        self._first_epochs: int | None = None
        self._running = 0
        self._busy_s = 0.0  # seconds times running stages

    def note(self, progress: StudyProgress, now_s: float) -> None:
        """Take in a new progress, at a time of a clock that never goes back."""
        if self._first_epochs is None and progress.executed_epochs:
            self._first_epochs, self._last_s = progress.executed_epochs, now_s
        if self._last_s is not None:
            self._busy_s += (now_s - self._last_s) * self._running
            self._last_s = now_s
        self._running = sum(state.status == "running" for state in progress.stages.values())

    def seconds_left(self, progress: StudyProgress) -> float | None:
        """None until enough epochs are measured, and at the end."""
        measured = progress.executed_epochs - (self._first_epochs or 0)
        left = {key: self._epochs_left(key, progress) for key in self._stages}
        if measured < LEAST_EPOCHS or not any(left.values()):
            return None
        chain = self._longest_chain(left)
        return self._busy_s / measured * max(chain, sum(left.values()) / progress.num_parallel)

    def _epochs_left(self, key: str, progress: StudyProgress) -> int:
        state = progress.stages.get(key, StageProgress("wanted"))
        is_over = state.status in ("done", "failed")
        return 0 if is_over else self._stages[key].epochs - state.epochs_done

    def _longest_chain(self, left: Mapping[str, int]) -> int:
        lengths: dict[str, int] = {}
        for key, stage in self._stages.items():  # inputs come first in every plan
            before = (lengths.get(source, 0) for source in stage.inputs.keys)
            lengths[key] = left[key] + max(before, default=0)
        return max(lengths.values())
