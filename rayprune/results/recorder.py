"""Keeps a study's results on disk true while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import yaml

from rayprune.config import Study
from rayprune.plan import count_epochs, method_name
from rayprune.results.files import default_storage, study_file, study_folder
from rayprune.results.outcome import StudySummary, TrialOutcome, TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.record import StageRecord
from rayprune.results.stages import finished_records
from rayprune.results.storage import read_bytes, write_bytes
from rayprune.results.table import make_table, read_metadata, read_table, write_table
from rayprune.trials import TrialPlan

NOT_YET = "not done when this was written; the same command goes on from here"


class Recorder:
    """Writes study.yaml and results.parquet; knows what earlier starts have finished."""

    def __init__(self, study: Study, trials: Sequence[TrialPlan]) -> None:
        self.study, self.trials, self.storage = study, tuple(trials), default_storage(study)
        self.folder = study_folder(self.storage, study.name)
        self._records: dict[str, StageRecord] = {}
        self._written: tuple[TrialStatus, ...] | None = None
        last = {trial.name: trial.plan[-1].key for trial in trials}
        done = {key for key in dict.fromkeys(last.values()) if self._find(key)}
        self.pending = tuple(trial for trial in trials if last[trial.name] not in done)
        """Trials whose last stage is not done."""
        finished = [stage for trial in trials if last[trial.name] in done for stage in trial.plan]
        self.found = {
            stage.key: StageProgress("done", stage.epochs, self._records[stage.key].metrics)
            for stage in finished
            if stage.key in self._records
        }
        """Stages that earlier starts, or other studies, have done for the other trials."""

    def write_study(self) -> None:
        """Write study.yaml as it was resolved. Raises ``StorageError``."""
        resolved = self.study.model_copy(update={"storage": self.storage}).model_dump(mode="json")
        content = yaml.safe_dump(resolved, sort_keys=False).encode()
        if read_bytes(study_file(self.folder)) != content:
            write_bytes(study_file(self.folder), content)

    def update(self, progress: StudyProgress) -> StudyProgress:
        """Write the table if a trial has ended since the last time; return all that is known.

        Raises ``StorageError``.
        """
        known = self.known(progress)
        if self._written != self._statuses(known):
            self.write(progress)
        return known

    def up_to_date(self) -> pa.Table | None:
        """The table on disk, if it already says that these trials finished with these stages."""
        try:
            table = read_table(self.folder)
            summary, statuses = read_metadata(table)
        except ValueError:
            return None
        finished = [TrialStatus(name=trial.name, status="finished") for trial in self.trials]
        if list(statuses) != finished or summary != self._summary(summary):
            return None
        finals = {row["trial"]: row["key"] for row in table.to_pylist() if row["is_final"]}
        return table if finals == {t.name: t.plan[-1].key for t in self.trials} else None

    def write(self, progress: StudyProgress) -> pa.Table:
        """Write and return the table. Raises ``StorageError``."""
        known = self.known(progress)
        statuses = self._statuses(known)
        outcomes = [
            TrialOutcome(
                **vars(status),
                values=trial.values,
                method=method_name(trial.experiment),
                seed=trial.experiment.seed,
                records=self._records_of(trial, known.stages),
            )
            for trial, status in zip(self.trials, statuses, strict=True)
        ]
        table = make_table(outcomes, progress.executed_for, self._summary(progress))
        write_table(self.folder, table)
        self._written = statuses
        return table

    def known(self, progress: StudyProgress) -> StudyProgress:
        """The progress of this start, and what was found from before."""
        return StudyProgress(**{**vars(progress), "stages": {**self.found, **progress.stages}})

    def _statuses(self, progress: StudyProgress) -> tuple[TrialStatus, ...]:
        return tuple(_stands(trial, progress) for trial in self.trials)

    def _records_of(
        self, trial: TrialPlan, stages: Mapping[str, StageProgress]
    ) -> tuple[StageRecord, ...]:
        """Records of the stages that are done, in the order of the plan."""
        done = [s.key for s in trial.plan if s.key in stages and stages[s.key].status == "done"]
        for key in reversed(done):  # the last one's manifest has the records of those before it
            self._find(key)
        return tuple(self._records[key] for key in done if key in self._records)

    def _find(self, key: str) -> bool:
        if key not in self._records:
            chain = finished_records(self.storage, key)
            self._records |= {record.key: record for record in chain or ()}
        return key in self._records

    def _summary(self, progress: StudyProgress | StudySummary) -> StudySummary:
        epochs = count_epochs(trial.plan for trial in self.trials)
        return StudySummary(
            name=self.study.name,
            metric=self.study.search.metric,
            mode=self.study.search.mode,
            searched=tuple(self.trials[0].values),
            executed_epochs=progress.executed_epochs,
            unique_epochs=epochs.unique,
            naive_epochs=epochs.naive,
        )


def _stands(trial: TrialPlan, progress: StudyProgress) -> TrialStatus:
    states = [progress.stages[s.key] for s in trial.plan if s.key in progress.stages]
    errors = [state.error for state in states if state.status == "failed"]
    last = progress.stages.get(trial.plan[-1].key)
    if last is not None and last.status == "done":
        return TrialStatus(name=trial.name, status="finished")
    if errors:
        return TrialStatus(name=trial.name, status="failed", reason=errors[0] or "")
    if trial.name in progress.given_up:
        return progress.given_up[trial.name]
    return TrialStatus(name=trial.name, status="unfinished", reason=NOT_YET)
