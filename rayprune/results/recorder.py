"""Keeps a study's results on disk true while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import yaml

from rayprune.config import ConfigError, Study
from rayprune.config.goals import goals_of
from rayprune.plan import EpochCount, count_epochs, method_name
from rayprune.results.earlier import (
    Earlier,
    check_same,
    made_otherwise,
    read_earlier,
    stops_alike,
)
from rayprune.results.files import default_storage, study_file, study_folder
from rayprune.results.labels import counted, said
from rayprune.results.measurement import Measurement, Measurements
from rayprune.results.outcome import StudySummary, TrialOutcome, TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.proposed import Proposal, read_proposals, write_proposals
from rayprune.results.record import StageRecord
from rayprune.results.stages import finished_records, read_manifests
from rayprune.results.statuses import Statuses
from rayprune.results.storage import StorageError, read_bytes, write_bytes
from rayprune.results.table import make_table, measurements_in, read_metadata, write_table
from rayprune.results.tuning import choose
from rayprune.trials import TrialPlan, num_proposed, num_settings, report_trials, tuned_names

# Between writes of the table, times what a write takes: it grows with the study, and may cost the
# driver a twentieth of its time.
REST = 20.0

_OTHERWISE = (
    "{} of this study came from other workers, threads or devices, from other data, weights or "
    "code, or from another version of rayprune. Their results stay in the storage, and are not "
    "mixed with new ones: they run again"
)

log = logging.getLogger(__name__)


class Recorder:
    """Writes study.yaml and results.parquet; knows what earlier starts have done."""

    def __init__(self, study: Study, trials: Sequence[TrialPlan], *, force: bool = False) -> None:
        """`trials` are all of the study's, or none where a searcher proposes them: then those that
        it has proposed are read. Raises ``ConfigError`` for a folder of another study, unless
        `force` is to replace it.
        """
        self.study, self.storage = study, default_storage(study)
        self.folder = study_folder(self.storage, study.name)
        self._records: dict[str, StageRecord] = {}
        self._earlier = _read_earlier(self.folder, study, trials, force=force)
        self.proposals: list[Proposal] = []
        """What a searcher has proposed, each the point of a trial, in their order."""
        if not study.search.algorithm.is_listed and self._earlier.study is not None:
            self.proposals = list(read_proposals(self.folder))
            trials = [proposal.make_trial(study) for proposal in self.proposals]
        if lost := made_otherwise(self._earlier, trials):
            log.warning("%s", _OTHERWISE.format(counted(lost, "finished trial")))
        self.trials: list[TrialPlan] = list(trials)
        """All trials so far; a searcher adds to them, and so does what tuning chose."""
        self._tries = tuple(trial for trial in trials if trial.phase == "tune")
        self._tuning_epochs = count_epochs(trial.plan for trial in self._tries).unique
        self._untuned: list[str] = []
        self._num_chosen, self._num_settings = 0, num_settings(study) if self._tries else 0
        """Settings of a study that tunes: those whose choice is made, and all."""
        done = self._find_done(self.trials)
        if chosen := self._choose(lambda trial: trial.key in done):
            done |= self._find_done(chosen)
        trials = self.trials
        self.stopped = _stopped(self._earlier, study, trials, done)
        """Name -> status of the trials that were stopped early before: they stay stopped."""
        over = {t.name for t in trials if t.key in done or t.mistake} | self.stopped.keys()
        self.pending = tuple(trial for trial in trials if trial.name not in over)
        """Trials whose last stage is to be done."""
        self.found = self._found([trial for trial in trials if trial.name in over])
        """Stages that earlier starts, or other studies, have done for the other trials."""
        self._statuses = Statuses(trials)
        self._statuses.update(StudyProgress(self.found, given_up=self.stopped))
        self._counted = 0, EpochCount(0, 0)
        self._measurements = Measurements(self.storage, study.search.measure)
        self._is_behind = True  # the table on disk, behind the statuses
        self._rest_until_s = 0.0
        self._complaint = ""

    @property
    def has_work(self) -> bool:
        """Whether something is left to run, or to propose."""
        search = self.study.search
        seeds = search.seeds or (None,)
        num_there = sum(proposal.seed in seeds for proposal in self.proposals)
        is_proposed = search.algorithm.is_listed or num_there >= num_proposed(self.study)
        is_trained = not self.pending and is_proposed and self.is_whole
        return not is_trained or bool(self.unmeasured)

    @property
    def unmeasured(self) -> tuple[tuple[str, TrialPlan], ...]:
        """Stages that are done and to be measured still, each once: its key, and a trial with it.

        In the order of the trials, a dense run before what came of it; none of a study without
        `search.measure`. Raises ``StorageError``.
        """
        wanted = self._to_measure()
        return tuple((key, wanted[key]) for key in self._measurements.missing(wanted))

    def add_measured(self, key: str, measurement: Measurement) -> None:
        """Take in what was measured of a stage, and is kept in the storage."""
        self._measurements.add(key, measurement)
        self._is_behind = True

    def propose(self, point: Mapping[str, Any], seed: int | None) -> TrialPlan:
        """A new trial for a searcher's point, written down. Raises ``StorageError``."""
        width = len(str(num_proposed(self.study) - 1))
        proposal = Proposal(f"{len(self.trials):0{width}d}", point, seed)
        trial = proposal.make_trial(self.study)
        write_proposals(self.folder, [*self.proposals, proposal])
        self.proposals.append(proposal)
        self.trials.append(trial)
        return trial

    @property
    def is_whole(self) -> bool:
        """Whether `trials` are all that there will be, but for those that a searcher proposes."""
        return self._num_chosen == self._num_settings

    def grow(self) -> Sequence[TrialPlan]:
        """New trials: those that report on the settings that are tuned since the last time.

        Settings are taken in their order. What stands in the statuses is what `update` was told.
        Raises ``StorageError``; what was chosen before is returned, or the next time.
        """
        new = self._choose(self._statuses.is_over)
        self.pending = (*self.pending, *new)
        return new

    def _choose(self, is_over: Callable[[TrialPlan], bool]) -> list[TrialPlan]:
        """Add the reporting trials of the settings all of whose tries are over; return them."""
        new: list[TrialPlan] = []
        while not self.is_whole:
            tries = [trial for trial in self._tries if trial.setting == self._num_chosen]
            if not all(map(is_over, tries)):
                break
            try:
                last = {t.name: self._records[t.key] for t in tries if self._find(t.key)}
            except StorageError:
                if not new:
                    raise
                break  # what was chosen so far is not lost, and the next time is not far
            choice = choose(self.study, tries, last)
            chosen = [] if choice is None else report_trials(self.study, self._tries, choice)
            if choice is None:
                self._untuned.append(self._about(tries))
                log.warning("no try of %s ended with a result: it is not run", self._untuned[-1])
            # In this order: who asks from another thread finds them all once the study is whole.
            self.trials += chosen
            self._num_chosen += 1
            new += chosen
        return new

    def _about(self, tries: Sequence[TrialPlan]) -> str:
        """A setting in the words of its tries: what they have in common."""
        others = {"seed", *tuned_names(self.study)}
        values = {name: v for name, v in tries[0].values.items() if name not in others}
        return " ".join(said(values)) or "the study"

    def write_study(self) -> None:
        """Write study.yaml as it was resolved. Raises ``StorageError``."""
        resolved = self.study.model_copy(update={"storage": self.storage}).model_dump(mode="json")
        content = yaml.safe_dump(resolved, sort_keys=False).encode()
        if read_bytes(study_file(self.folder)) == content:
            return
        if any(trial.key in self._earlier.stopped for trial in self.pending):
            # Beside the new study.yaml, the old table would say that they stay stopped.
            self.write(StudyProgress({}))
        write_bytes(study_file(self.folder), content)

    def update(self, progress: StudyProgress) -> None:
        """Write the table if a trial has ended, or begun again, since it was written.

        Right after a write it waits a little for more; a write that fails is a warning and is tried
        again the next time. `write` is to have the last word.
        """
        new = self._statuses.add(self.trials)
        if self._statuses.update(progress) or new:
            self._is_behind = True
        if not self._is_behind or time.monotonic() < self._rest_until_s:
            return
        try:
            self.write(progress)
        except Exception as error:
            if str(error) != self._complaint:
                log.warning("the table was not written, the study goes on: %s", error)
            self._complaint = str(error)

    def up_to_date(self) -> pa.Table | None:
        """The table on disk, if it already says all that there is to say before anything runs."""
        table = self._earlier.table
        if table is None:
            return None
        summary, statuses = read_metadata(table)
        if statuses != self._statuses.all or summary != self._summary(summary):
            return None
        measured = self._measurements.known(self._to_measure())
        return table if measurements_in(table) == measured else None

    def write(self, progress: StudyProgress) -> pa.Table:
        """Write and return the table. Raises ``StorageError``."""
        started = time.monotonic()
        self._statuses.add(self.trials)
        self._statuses.update(progress)
        outcomes = [
            TrialOutcome(
                **vars(self._statuses.of(trial)),
                values=trial.values,
                method=method_name(trial.experiment),
                seed=trial.experiment.seed,
                records=self._records_of(trial),
            )
            for trial in self.trials[: len(self._statuses.all)]
        ]
        measured = self._measurements.known(self._to_measure())
        table = make_table(outcomes, progress.executed_for, self._summary(progress), measured)
        write_table(self.folder, table)
        self._is_behind, self._complaint = False, ""
        now = time.monotonic()
        self._rest_until_s = now + REST * (now - started)
        return table

    def _find_done(self, trials: Sequence[TrialPlan]) -> set[str]:
        """Keys of the trials that are finished, whose records are known from here on."""
        manifests = read_manifests(self.storage, {trial.key for trial in trials if trial.key})
        for manifest in filter(None, manifests.values()):
            self._records |= {record.key: record for record in manifest.records}
        return {key for key, manifest in manifests.items() if manifest is not None}

    def _found(self, over: Sequence[TrialPlan]) -> dict[str, StageProgress]:
        """The stages of these trials that are done."""
        for trial in over:
            # The manifest of the last one that is done has the records of those before it.
            any(self._find(stage.key) for stage in reversed(trial.plan))
        return {
            stage.key: StageProgress("done", stage.epochs, self._records[stage.key].measured)
            for trial in over
            for stage in trial.plan
            if stage.key in self._records
        }

    def _to_measure(self) -> dict[str, TrialPlan]:
        """Key -> first trial of the stages that are to be measured: of every finished trial that
        is no try its last stage, and its whole dense run."""
        stages: dict[str, TrialPlan] = {}
        is_asked = self.study.search.measure is not None
        for trial in self.trials[: len(self._statuses.all)] if is_asked else ():
            if trial.phase == "tune" or self._statuses.of(trial).status != "finished":
                continue
            done = {*self._statuses.done(trial)}
            dense = [s.key for s in trial.plan if s.is_dense and s.part_of is None]
            for key in (*dense, trial.key):
                if key in done:
                    stages.setdefault(key, trial)
        return stages

    def _records_of(self, trial: TrialPlan) -> tuple[StageRecord, ...]:
        """Records of the stages that are done, in the order of the plan."""
        done = self._statuses.done(trial)
        for key in reversed(done):  # the last one's manifest has the records of those before it
            self._find(key)
        return tuple(self._records[key] for key in done if key in self._records)

    def _find(self, key: str) -> bool:
        if key not in self._records:
            chain = finished_records(self.storage, key)
            self._records |= {record.key: record for record in chain or ()}
        return key in self._records

    def _summary(self, progress: StudyProgress | StudySummary) -> StudySummary:
        goals = goals_of(self.study)
        return StudySummary(
            name=self.study.name,
            metrics=goals.metrics,
            modes=goals.modes,
            lower_is_better=goals.lower_is_better,
            within_dense=goals.within_dense,
            searched=tuple(self.trials[0].values) if self.trials else (),
            executed_epochs=progress.executed_epochs,
            unique_epochs=self._epochs.unique,
            naive_epochs=self._epochs.naive,
            reference=self.study.search.reference or {},
            tuned=tuned_names(self.study),
            tuning_epochs=self._tuning_epochs,
            untuned=tuple(self._untuned),
            measure=measure.words if (measure := self.study.search.measure) else "",
            within=self.study.search.within,
        )

    @property
    def _epochs(self) -> EpochCount:
        if self._counted[0] != len(self.trials):
            self._counted = len(self.trials), count_epochs(trial.plan for trial in self.trials)
        return self._counted[1]


def _read_earlier(
    folder: str, study: Study, trials: Sequence[TrialPlan], *, force: bool
) -> Earlier:
    earlier = read_earlier(folder)
    try:
        check_same(folder, earlier.study, study, trials)
    except ConfigError:
        if not force and earlier.begun_study is not None:
            raise
        return Earlier(stopped=earlier.stopped)
    return earlier


def _stopped(
    earlier: Earlier, study: Study, trials: Sequence[TrialPlan], done: set[str]
) -> dict[str, TrialStatus]:
    if not stops_alike(earlier.study, study):
        return {}
    lasts = {trial.name: trial.key for trial in trials}
    return {
        name: replace(earlier.stopped[key], name=name)
        for name, key in lasts.items()
        if key in earlier.stopped and key not in done
    }
