"""How long a running study still takes."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.plan import Stage
from rayprune.results.progress import StudyProgress

LEAST_EPOCHS = 4  # to be measured before anything is said: the first one warms up
CHAIN_EVERY_S = 5.0  # the longest chain is looked for among all stages


class Estimate:
    """Seconds left, from what an epoch has taken a running stage since the first one was done.

    The epochs that are left are shared by the stages that can run at the same time, but a chain of
    stages that need each other takes its own length at least.
    """

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self._stages: dict[str, Stage] = {}
        self._left: dict[str, int] = {}
        self._num_left = 0
        self.add(stages)
        self._running: set[str] = set()
        self._last_s: float | None = None
        self._first_epochs: int | None = None
        self._busy_s = 0.0  # seconds times running stages
        self._chain, self._chain_at_s = 0, float("-inf")

    def add(self, stages: Mapping[str, Stage]) -> None:
        """Stages of trials that were proposed meanwhile; those that are known count once."""
        for key, stage in stages.items():
            if key not in self._stages:
                self._stages[key], self._left[key] = stage, stage.epochs
                self._num_left += stage.epochs

    def note(self, progress: StudyProgress, now_s: float) -> None:
        """Take in a new progress, at a time of a clock that never goes back."""
        if self._first_epochs is None and progress.executed_epochs:
            self._first_epochs, self._last_s = progress.executed_epochs, now_s
        if self._last_s is not None:
            self._busy_s += (now_s - self._last_s) * len(self._running)
            self._last_s = now_s
        for key in progress.news:
            state = progress.stages[key]
            (self._running.add if state.status == "running" else self._running.discard)(key)
            is_over = state.status in ("done", "failed")
            left = 0 if is_over else self._stages[key].epochs - state.epochs_done
            self._num_left += left - self._left[key]
            self._left[key] = left

    def seconds_left(self, progress: StudyProgress) -> float | None:
        """None until enough epochs are measured, and at the end."""
        measured = progress.executed_epochs - (self._first_epochs or 0)
        if measured < LEAST_EPOCHS or self._num_left == 0:
            return None
        epoch_s = self._busy_s / measured
        return max(self._chain_s(epoch_s), epoch_s * self._num_left / progress.num_parallel)

    def _chain_s(self, epoch_s: float) -> float:
        """Seconds that the longest chain takes; what ran since it was found runs on in it."""
        assert self._last_s is not None, "epochs were measured"
        if self._last_s - self._chain_at_s >= CHAIN_EVERY_S:
            self._chain, self._chain_at_s = self._longest_chain(), self._last_s
        return epoch_s * self._chain - (self._last_s - self._chain_at_s)

    def _longest_chain(self) -> int:
        lengths: dict[str, int] = {}
        for key, stage in self._stages.items():  # inputs come first in every plan
            before = (lengths.get(source, 0) for source in stage.inputs.keys)
            lengths[key] = self._left[key] + max(before, default=0)
        return max(lengths.values(), default=0)
