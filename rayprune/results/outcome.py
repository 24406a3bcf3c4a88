"""How a trial ended, as a value: never as text that somebody has to read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rayprune.results.record import StageRecord
from rayprune.trials import Phase

Status = Literal["finished", "failed", "infeasible", "stopped", "unfinished"]
"""finished: every stage is done. failed: a stage cannot be done. infeasible: a searcher's point
contradicts itself. stopped: a scheduler or a stopper gave the trial up. unfinished: none of these
so far; a study that was interrupted leaves such trials."""


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """How one trial stands, and why."""

    name: str
    status: Status
    reason: str = ""
    """Why it did not finish; empty for a finished trial."""
    key: str = ""
    """Of the last stage of its plan: names may be given anew as a study grows, keys are not."""
    phase: Phase = ""
    """Of a study that tunes: tune for a try, report for what was chosen."""
    reported: tuple[Mapping[str, float], ...] = ()
    """Of a stopped trial: what it reported to Ray Tune, epoch by epoch. Trials of a later start are
    compared with it."""


@dataclass(frozen=True, kw_only=True)
class TrialOutcome(TrialStatus):
    """One trial: how it stands, what was searched, and the records of its finished stages."""

    values: Mapping[str, Any]
    """Searched field -> value."""
    method: str
    """What the table calls it: imp, bimp, dense, or the method that sparsified the dense run."""
    seed: int
    records: tuple[StageRecord, ...] = ()
    """A record for each stage that is done, in the order of the plan."""


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What a study as a whole did; it travels with the table."""

    name: str
    metrics: tuple[str, ...]
    """The goals; settings are ranked by the first."""
    modes: tuple[Literal["max", "min"], ...]
    """For each goal whether more or less of it is better."""
    within_dense: float | None
    """The loss against dense within which the sparsest setting is best; None: the best metric."""
    searched: tuple[str, ...]
    """Searched fields, in the order of the table's columns."""
    executed_epochs: int
    """Epochs that this start of the study ran."""
    unique_epochs: int
    """Epochs of all different stages."""
    naive_epochs: int
    """Epochs that separate runs of all trials would take."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Searched field -> value of the settings that all are compared with; empty: the best ones."""
    tuned: tuple[str, ...] = ()
    """Columns whose value was chosen for each setting by tries on seeds of their own."""
    tuning_epochs: int = 0
    """Epochs of these tries."""
    lower_is_better: tuple[str, ...] = ("loss",)
    """Metrics of the task, without ``val_``, of which less is better; of all others more is."""
    untuned: tuple[str, ...] = ()
    """Settings of which no try ended with a result, and which nothing is reported of."""
    measure: str = ""
    """What trained networks are measured in: "mnn, 1 thread, batch 1"; empty: they are not."""
    within: Mapping[str, float] = field(default_factory=dict)
    """Column of what is measured -> the most of it that the best setting may have."""

    @property
    def metric(self) -> str:
        """What settings are ranked by."""
        return self.metrics[0]

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether more of it is better."""
        return self.modes[0]
