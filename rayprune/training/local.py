"""A study without Ray: its trials one after the other, in this process or on torchrun's ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pyarrow as pa

from rayprune.config import ConfigError, Study
from rayprune.config.goals import Goals, goals_of
from rayprune.results.files import default_storage, storage_of, study_folder
from rayprune.results.progress import Changes, ProgressLog, StageProgress, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.stages import finished_records
from rayprune.results.storage import StorageError
from rayprune.training.run import failure_message, load_dataset, run_plan
from rayprune.training.stage import EpochReport
from rayprune.training.worker import Worker, broadcast, local_worker, met_by_all, training_process
from rayprune.trials import TrialPlan


def run_local(
    study: Study,
    recorder: Recorder | None,
    on_progress: Callable[[StudyProgress], None],
    measure: Callable[[StudyProgress], None] = lambda progress: None,
) -> pa.Table:
    """Run the trials that are not finished; return the study's table, the same on every rank.

    Rank 0 alone has a `recorder`: it knows the trials, reads and writes the storage, and calls
    `on_progress` after every epoch, and `measure` once all trials are over. A trial that cannot be
    run fails alone. Raises ``StorageError``.
    """
    folder, goals = study_folder(default_storage(study), study.name), goals_of(study)
    load_dataset.cache_clear()  # files may have been written anew since an earlier study
    with training_process(study.scaling.cpus_per_worker), local_worker() as worker:
        journal = None if recorder is None else _Journal(recorder, on_progress)
        if recorder is not None:
            recorder.write_study()
        pending = broadcast(None if recorder is None else list(recorder.pending), worker)
        had_work = bool(pending)
        while pending:
            for trial in pending:
                _run_trial(trial, worker, folder, journal, goals)
            # What was tuned is run again, on other seeds.
            pending = broadcast(None if recorder is None else list(recorder.grow()), worker)
        table = None
        if recorder is not None and journal is not None:
            measure(journal.progress)
            table = None if had_work else recorder.up_to_date()
            table = table or recorder.write(journal.progress)
        return broadcast(table, worker)


class _Journal:
    """What has been run so far, told to the recorder and to whoever watches."""

    def __init__(self, recorder: Recorder, on_progress: Callable[[StudyProgress], None]) -> None:
        self._recorder, self._on_progress = recorder, on_progress
        self._log = ProgressLog(recorder.found, recorder.stopped)
        self._version = self._executed_epochs = 0

    @property
    def progress(self) -> StudyProgress:
        return self._log.progress

    def epoch_done(self, report: EpochReport, trial: str) -> None:
        key, done = report.stage.key, report.epochs_done
        self._executed_epochs += 1
        state = StageProgress("running", done, report.metrics, report.samples_per_second)
        self._tell({key: state}, {key: trial})

    def trial_done(self, trial: TrialPlan) -> None:
        done, known = self._finished(trial), self._log.progress.stages
        without_epochs = [s.key for s in trial.plan if s.epochs == 0 and s.key not in known]
        self._tell(done, dict.fromkeys(without_epochs, trial.name))

    def trial_failed(self, trial: TrialPlan, error: str) -> None:
        """Its first stage that is not done is the one that cannot be done."""
        stages = self._finished(trial)
        not_done = next((s.key for s in trial.plan if s.key not in stages), trial.key)
        self._tell({**stages, not_done: StageProgress("failed", error=error)})

    def has_failed(self, trial: TrialPlan) -> bool:
        """Whether a stage that it shares with an earlier trial cannot be done."""
        known = self._log.progress.stages
        states = (known.get(stage.key) for stage in trial.plan)
        return any(state is not None and state.status == "failed" for state in states)

    def _finished(self, trial: TrialPlan) -> dict[str, StageProgress]:
        stages = {}
        for stage in trial.plan:
            records = finished_records(self._recorder.storage, stage.key)
            if records is not None:
                stages[stage.key] = StageProgress("done", stage.epochs, records[-1].measured)
        return stages

    def _tell(
        self, stages: Mapping[str, StageProgress], executed_for: Mapping[str, str] | None = None
    ) -> None:
        self._version += 1
        changes = Changes(
            ledger="this process",
            version=self._version,
            stages=stages,
            executed_for=executed_for or {},
            executed_epochs=self._executed_epochs,
        )
        progress = replace(self._log.take(changes), trials=self._recorder.trials)
        self._recorder.update(progress)
        self._on_progress(progress)


def _run_trial(
    trial: TrialPlan, worker: Worker, folder: str, journal: _Journal | None, goals: Goals
) -> None:
    storage = storage_of(folder)

    def on_epoch(report: EpochReport) -> bool:
        if mistake := goals.mistake_in(report.metrics):  # every rank meets it
            raise ConfigError(mistake)
        if journal is not None:
            journal.epoch_done(report, trial.name)
        return True

    if broadcast(journal and journal.has_failed(trial), worker):
        return
    try:
        run_plan(trial.experiment, trial.plan, worker, storage, owner=folder, on_epoch=on_epoch)
    except StorageError:
        raise
    except Exception as error:
        is_mistake = isinstance(error, ValueError)
        if worker.world_size > 1 and not (is_mistake and met_by_all(trial.name, worker)):
            raise  # the other ranks are elsewhere, and wait: this process must end
        if journal is not None:
            journal.trial_failed(trial, failure_message(error))
        return
    if journal is not None:
        journal.trial_done(trial)
