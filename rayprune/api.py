"""Run a study and open its results: what scripts, notebooks and the commands call."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayprune import report
from rayprune.checks import check, check_parts, check_words
from rayprune.config import Experiment, Study
from rayprune.plan import dense_run
from rayprune.results.comparison import Comparison
from rayprune.results.files import (
    best_folder,
    default_storage,
    dense_folder,
    export_folder,
    location,
    provenance_file,
    report_file,
    storage_of,
    study_folder,
    study_lease_file,
    table_file,
)
from rayprune.results.ignored import make_ignored
from rayprune.results.lease import held
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import ProgressLog, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.setting import Setting
from rayprune.results.stages import finished_records
from rayprune.results.storage import modified, read_bytes
from rayprune.results.table import read_table
from rayprune.trials import TrialPlan, make_trials

if TYPE_CHECKING:
    from ray.tune import Callback, ResultGrid

    from rayprune.exporting.export import Exported
    from rayprune.snapshot import Snapshot

log = logging.getLogger(__name__)

NO_TRY = "no try of it ended with a result"

OnProgress = Callable[[StudyProgress], None]
OnResults = Callable[["Results"], None]


@dataclass(frozen=True)
class BestTrial:
    """The trial to ship."""

    name: str
    key: str
    """Names its last stage, and so its snapshot."""
    row: Mapping[str, Any]
    """Its last row of the table: sparsity, metrics, what was searched."""
    storage: str

    @property
    def snapshot(self) -> Snapshot:
        """Its weights and masks. Raises ``ValueError`` if they are gone."""
        return _snapshot_of(self.storage, self.key)


@dataclass(frozen=True, repr=False)
class Results:
    """What a study came to: its table, and what the table says."""

    folder: str
    """Where results.parquet lies: a path or a URI."""
    table: pa.Table
    """A row for each trial and finished stage."""
    result_grid: ResultGrid | None = field(default=None, compare=False)
    """What Ray Tune returned: of all trials their configs, metrics epoch by epoch, and errors.
    None for results that were opened, of a start that had nothing to run, or without Ray."""

    @cached_property
    def comparison(self) -> Comparison:
        """Settings averaged over seeds, the dense line, and which is best."""
        return Comparison.from_table(self.table)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Trials that differ in their seed alone, together; best first."""
        return self.comparison.settings

    @property
    def answer(self) -> str:
        """One sentence: how sparse, with which retraining, at what loss against the dense run."""
        return report.answer(self.comparison)

    @property
    def trials(self) -> tuple[TrialStatus, ...]:
        """How every trial stands and why: finished, failed, infeasible, stopped or unfinished."""
        return self.comparison.statuses

    @property
    def errors(self) -> dict[str, str]:
        """Trial -> why it failed or is unfinished; of a study that tunes, setting -> as much.

        A try that failed is an answer, as that a rate was too large, unless all of a setting did.
        """
        bad = ("failed", "unfinished")
        found = {
            trial.name: trial.reason
            for trial in self.trials
            if trial.status in bad and (trial.phase, trial.status) != ("tune", "failed")
        }
        return found | dict.fromkeys(self.comparison.summary.untuned, NO_TRY)

    @property
    def best(self) -> BestTrial | None:
        """The trial to ship, chosen by validation alone; None while no trial has finished.

        It has the best value of the first goal, or, with `search.within_dense`, is the sparsest
        that loses no more than that: see ``Comparison.best``.
        """
        row = self.comparison.best
        if row is None:
            return None
        return BestTrial(str(row["trial"]), str(row["key"]), row, storage_of(self.folder))

    def export(
        self,
        formats: Sequence[str],
        *,
        trial: str | None = None,
        stage: str | None = None,
        measure: bool = False,
        threads: int = 1,
        batch: int = 8,
        folder: str | Path | None = None,
        say: Callable[[str], None] = lambda doing: None,
    ) -> Exported:
        """Write the best trial's network as files for others, with a card; or another one's.

        `formats` are some of safetensors, packed, onnx, int8, mnn, small, torch_sparse and
        semi_structured. `trial` names a finished trial, `stage` a stage by its key. With `measure`
        latencies are measured, of one sample and of `batch`, on so many `threads`. The files go
        to ``export/best`` in the study's folder, or to one for the trial or the stage, unless
        `folder` says otherwise. `say` hears what is being done.

        Raises ``ValueError`` for what cannot be exported, before anything is written;
        ``StorageError``.
        """
        from rayprune.exporting.exported import check_formats

        latencies_of = (threads, batch) if measure else None
        check_formats(formats, latencies_of)
        if trial is not None and stage is not None:
            raise ValueError(f"trial {trial} and stage {stage}: name one of the two")
        from rayprune.exporting.chosen import choose_stage
        from rayprune.exporting.export import export

        best = None if self.best is None else self.best.row
        chosen = choose_stage(self.folder, self.table, best, trial, stage)
        name = f"stage-{chosen.key}" if stage else f"trial-{trial}" if trial else "best"
        place = export_folder(self.folder, name) if folder is None else location(folder)
        summary = self.comparison.summary
        return export(
            _snapshot_of(storage_of(self.folder), chosen.key),
            chosen.experiment,
            place,
            formats,
            about={"study": summary.name, "trial": chosen.trial, "key": chosen.key},
            latencies_of=latencies_of,
            say=say,
        )

    def __repr__(self) -> str:
        return f"Results({self.folder!r}): {self.answer}"

    def _repr_html_(self) -> str:
        return report.summary_html(self.comparison)


def run(
    study: Study,
    *,
    ray: bool = True,
    force: bool = False,
    on_progress: OnProgress | None = None,
    on_results: OnResults | None = None,
    callbacks: Sequence[Callback] = (),
    stop: Any = None,
) -> Results:
    """Run every trial of a study that is not finished, and open its results.

    Stages that trials share run once; what an earlier start has finished is not run again. With
    `ray` the study runs on the Ray that this process is connected to, else on the cluster of
    RAY_ADDRESS or on a Ray that is started here and ended again; without, in this process, one
    trial after the other, or on torchrun's ranks. `on_progress` hears of progress, and `on_results`
    of the results as soon as they are written, before a Ray that was started here is ended.
    `callbacks` (loggers are some of them) and `stop` are those of Ray Tune's ``RunConfig``.

    A study that has results already may have grown, by seeds or values. `force` replaces the table
    of another study of that name. A trial that fails does so alone: see ``Results.trials``.

    Raises ``ConfigError`` for a study that cannot be run as written, or whose folder is another's,
    ``LeaseHeldError`` for one that is run already, ``StorageError`` when results cannot be written.
    """
    study = study if ray else without_ray(study)
    trials = make_trials(study)  # none where a searcher proposes them
    with _environment_restored():
        return _run(
            study,
            trials,
            ray=ray,
            force=force,
            on_progress=_harmless(on_progress),
            on_results=on_results or (lambda results: None),
            tune_options={"callbacks": callbacks, "stop": stop},
        )


def without_ray(study: Study) -> Study:
    """The study with the scaling that it has in this process: one worker, or torchrun's ranks."""
    update = {"workers": int(os.environ.get("WORLD_SIZE", 1)), "gpus_per_worker": float(_has_gpu())}
    return study.model_copy(update={"scaling": study.scaling.model_copy(update=update)})


def _has_gpu() -> bool:
    """Whether torch would compute on one; importing it takes seconds, so only if there may be."""
    if not any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def is_first_rank() -> bool:
    """Whether this process is rank 0 of torchrun's, or alone."""
    return int(os.environ.get("RANK", 0)) == 0


def _run(
    study: Study,
    trials: Sequence[TrialPlan],
    *,
    ray: bool,
    force: bool,
    on_progress: OnProgress,
    on_results: OnResults,
    tune_options: Mapping[str, Any],
) -> Results:
    folder = study_folder(default_storage(study), study.name)
    recorder = Recorder(study, trials, force=force) if ray or is_first_rank() else None

    def keep(table: pa.Table, grid: ResultGrid | None = None) -> Results:
        results = Results(folder, table, grid)
        if recorder is not None:
            _ship(results, recorder.trials)
            on_results(results)
        return results

    if ray and recorder is not None and recorder.has_work:
        return _run_on_ray(recorder, trials, on_progress, keep, tune_options)
    return _run_here(study, trials, recorder, ray, on_progress, keep)


def open_results(folder: str | Path) -> Results:
    """The results in a study's folder or URI. Raises ``ValueError`` if it holds none of ours."""
    place = location(folder)
    return Results(place, read_table(place))


def write_report(results: Results | str | Path) -> str:
    """Write report.html and plots/ beside a study's results; return the page's location.

    Raises ``ValueError`` where a folder holds no results, ``StorageError``.
    """
    opened = results if isinstance(results, Results) else open_results(results)
    return report.write_report(opened.folder, opened.comparison)


def has_report(results: Results) -> bool:
    """Whether report.html is there and younger than the table."""
    page, table = (modified(f(results.folder)) for f in (report_file, table_file))
    return page is not None and table is not None and page >= table


def load_snapshot(results: Results | str | Path, trial: str | None = None) -> Snapshot:
    """Weights and masks of a finished trial, of the best one by default.

    Raises ``ValueError`` if there is no such trial, or its snapshot is gone from the storage.
    """
    opened = results if isinstance(results, Results) else open_results(results)
    if trial is None:
        best = opened.best
        if best is None:
            raise ValueError(f"no trial has finished in {opened.folder}, so there is no best one")
        return best.snapshot
    finals = {row["trial"]: row["key"] for row in opened.table.to_pylist() if row["is_final"]}
    if trial not in finals:
        known = ", ".join(sorted(finals)) or "none"
        raise ValueError(f"trial {trial!r} has not finished. Finished trials: {known}")
    return _snapshot_of(storage_of(opened.folder), finals[trial])


def _run_on_ray(
    recorder: Recorder,
    trials: Sequence[TrialPlan],
    on_progress: OnProgress,
    keep: Callable[..., Results],
    tune_options: Mapping[str, Any],
) -> Results:
    """Run what is left on Ray. It starts while the study is checked: both take seconds."""
    study, folder = recorder.study, recorder.folder
    check_words(study, ray=True)
    from rayprune.distributed.connection import connected

    def meanwhile() -> None:
        check_parts(study, trials)
        import_module("rayprune.distributed.search")

    with connected(meanwhile) as is_ours:
        from rayprune.distributed.search import TuneOptions, search

        _make_folders(recorder)
        with held(study_lease_file(folder), folder):
            options = TuneOptions(**tune_options)
            return search(recorder, on_progress, keep, options, is_ours=is_ours)


def _run_here(
    study: Study,
    trials: Sequence[TrialPlan],
    recorder: Recorder | None,
    ray: bool,
    on_progress: OnProgress,
    keep: Callable[..., Results],
) -> Results:
    """Run what is left, maybe nothing; `recorder` is None on torchrun's ranks but the first."""
    in_group = not ray and int(os.environ.get("WORLD_SIZE", 1)) > 1  # its ranks end together
    if recorder is not None and not recorder.has_work and not in_group:
        # What is finished needs neither data nor workers, nor the seconds of importing torch.
        _make_folders(recorder)
        recorder.write_study()
        progress = ProgressLog(recorder.found, recorder.stopped).progress
        on_progress(replace(progress, trials=recorder.trials))
        return keep(recorder.up_to_date() or recorder.write(StudyProgress({})))
    if recorder is None or recorder.has_work:
        check(study, trials, ray=False)
    if recorder is not None:
        _make_folders(recorder)
    from rayprune.training.local import run_local

    is_held = recorder is not None and recorder.has_work
    folder = study_folder(default_storage(study), study.name)

    def measure(progress: StudyProgress) -> None:
        if recorder is not None and recorder.unmeasured:
            from rayprune.exporting.study import measure_here

            measure_here(recorder, progress, on_progress)

    with held(study_lease_file(folder), folder) if is_held else nullcontext():
        return keep(run_local(study, recorder, on_progress, measure))


def _make_folders(recorder: Recorder) -> None:
    """Where results are written, once it is known that the study can be run."""
    make_ignored(recorder.storage, recorder.folder, f"{recorder.storage}/stages")


def _harmless(on_progress: OnProgress | None) -> OnProgress:
    """What only informs may fail, and the study goes on; the first failure is logged."""
    failed: list[Exception] = []

    def call(progress: StudyProgress) -> None:
        try:
            if on_progress is not None:
                on_progress(progress)
        except Exception as error:
            if not failed:
                log.warning("on_progress failed, the study goes on", exc_info=error)
            failed.append(error)

    return call


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Ray and torch set variables of the process as they start; a caller's are his own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _ship(results: Results, trials: Sequence[TrialPlan]) -> None:
    """Write best/, the model of the best trial, and dense/, the network that it was pruned from.

    Where that fails, the results are there anyway.
    """
    best = results.best
    trial = next((t for t in trials if best is not None and t.name == best.name), None)
    if best is None or trial is None:
        return
    keys = {best_folder(results.folder): best.key}
    dense = dense_run(trial.plan).key
    if _has_dense_network(trial.experiment) and finished_records(best.storage, dense) is not None:
        keys[dense_folder(results.folder)] = dense
    for folder, key in keys.items():
        try:
            if _shipped_key(folder) != key:
                _write_model(results, trial, best.storage, key, folder)
        except Exception as error:
            is_clear = isinstance(error, OSError | ValueError)
            reason = None if is_clear else error
            log.warning("%s was not written: %s", folder, error, exc_info=reason)


def _has_dense_network(experiment: Experiment) -> bool:
    """Whether its dense run made a dense network, from which a later study can start."""
    return experiment.dense.sparsify is None and not experiment.is_brought


def _write_model(results: Results, trial: TrialPlan, storage: str, key: str, folder: str) -> None:
    from rayprune.exporting.model_files import write_model

    about = {"study": results.comparison.summary.name, "trial": trial.name, "key": key}
    write_model(_snapshot_of(storage, key), trial.experiment, folder, about)


def _shipped_key(folder: str) -> str | None:
    """Which stage's model lies in a folder; None if there is none, or one that is not whole."""
    content = read_bytes(provenance_file(folder))
    try:
        return None if content is None else str(json.loads(content)["key"])
    except (ValueError, KeyError, TypeError):
        return None


def _snapshot_of(storage: str, key: str) -> Snapshot:
    from rayprune.results.stages import LostSnapshotError, load_content
    from rayprune.snapshot import decode

    try:
        return decode(load_content(storage, key))
    except LostSnapshotError:
        raise ValueError(
            f"the snapshot of stage {key} is gone from {storage}/stages, or damaged. Run the study "
            f"again: what is there is not run twice"
        ) from None
