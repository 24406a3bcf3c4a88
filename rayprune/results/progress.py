"""Progress of a running study: what the ledger knows, and what people are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rayprune.results.outcome import TrialStatus

StageStatus = Literal["wanted", "running", "done", "failed"]


@dataclass(frozen=True)
class StageProgress:
    """Progress of one stage."""

    status: StageStatus
    epochs_done: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of its last epoch: val_… and train_loss."""
    images_per_second: float = 0.0
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True)
class StudyProgress:
    """Progress of a whole study, as it was when somebody asked."""

    stages: Mapping[str, StageProgress]
    """By key; a stage that is not in it is wanted."""
    given_up: Mapping[str, TrialStatus] = field(default_factory=dict)
    """Trials that ended before their plan was done, by name: stopped early, or lost."""
    executed_for: Mapping[str, str] = field(default_factory=dict)
    """Key -> the trial that a stage was run for, for every stage that this start has run."""
    executed_epochs: int = 0
    num_parallel: int = 1
    """Stages that can run at the same time."""
