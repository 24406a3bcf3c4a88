"""What trackers call a trial: a run of the study, found again by later starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rayprune.config import Study
from rayprune.distributed.trial import FAILED, IS_FINAL
from rayprune.results.labels import said


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """A trial as trackers see it."""

    id: str
    """The same for the same values of the same study, whatever the trial is called meanwhile."""
    name: str
    title: str
    """The study, the trial and its values, for people."""
    values: Mapping[str, Any]
    """Searched field -> value."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a trial ended, in MLflow's words."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    reason: str = ""


@dataclass(frozen=True)
class Runs:
    """Names the runs of a study."""

    study: Study
    folder: str

    def of(self, trial: Any) -> TrialRun:
        """The run of one of Tune's trials."""
        values = {field: value for field, value in trial.config.items() if field != "trial"}
        name = str(trial.config["trial"])
        # As a study of a list grows, names are given anew; a searcher may propose a point twice.
        is_listed = self.study.search.algorithm.is_listed
        experiment = self.study.experiment.model_dump(mode="json")
        made_of = [self.folder, experiment, values, None if is_listed else name]
        content = json.dumps(made_of, sort_keys=True, default=str)
        return TrialRun(
            id=hashlib.sha256(content.encode()).hexdigest()[:16],
            name=name,
            title=" ".join([self.study.name, name, *said(values)])[:120],
            values=values,
        )


def end_of(last_result: Mapping[str, Any] | None) -> End:
    """How a trial ended that Tune did not see die."""
    last = last_result or {}
    if FAILED in last:
        return End(status="FAILED", reason=str(last[FAILED]))
    if last and not last.get(IS_FINAL):
        return End(status="KILLED", reason="a scheduler or a stopper ended it")
    return End(status="FINISHED")
