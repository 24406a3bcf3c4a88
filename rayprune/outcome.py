"""What a study came to: which trials finished, why others did not, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayprune import results
from rayprune.config import Study
from rayprune.load import TrialPlan
from rayprune.plan import count_epochs, method_name
from rayprune.results import StageRecord, TrialResult


@dataclass(frozen=True)
class Outcome:
    """A study's trials, as far as they have ended."""

    study: Study
    trials: tuple[TrialPlan, ...]
    storage: str
    finished: Mapping[str, tuple[StageRecord, ...]]
    """Trial -> the records of its stages."""
    errors: Mapping[str, str]
    """Trial -> why it could not be run."""
    executed_by: Mapping[str, str]
    """Key -> the trial that a stage was run for, for every stage that was run here."""
    executed_epochs: int

    @property
    def folder(self) -> str:
        return results.study_folder(self.storage, self.study.name)


def write_study(study: Study, storage: str) -> None:
    """Write study.yaml as it was resolved. Raises ``StorageError``."""
    folder = results.study_folder(storage, study.name)
    resolved = study.model_copy(update={"storage": storage}).model_dump(mode="json")
    text = yaml.safe_dump(resolved, sort_keys=False)
    results.write_bytes(results.study_file(folder), text.encode())


def write_outcome(outcome: Outcome) -> None:
    """Write results.parquet with all trials that have finished. Raises ``StorageError``."""
    done = [
        TrialResult(
            name=trial.name,
            values=trial.values,
            method=method_name(trial.experiment),
            seed=trial.experiment.seed,
            records=outcome.finished[trial.name],
        )
        for trial in outcome.trials
        if trial.name in outcome.finished
    ]
    table = results.make_table(done, outcome.executed_by, _summary(outcome))
    results.write_table(outcome.folder, table)


def _summary(outcome: Outcome) -> dict[str, Any]:
    search, ended = outcome.study.search, {*outcome.finished, *outcome.errors}
    stopped = {trial.name: "stopped early" for trial in outcome.trials if trial.name not in ended}
    return {
        "name": outcome.study.name,
        "metric": search.metric,
        "mode": search.mode,
        "searched": list(outcome.trials[0].values),
        "executed_epochs": outcome.executed_epochs,
        **count_epochs([trial.plan for trial in outcome.trials]),
        "failed": {**outcome.errors, **stopped},
    }
