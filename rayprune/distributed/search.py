"""A study on Ray: Tune's trials want stages, slots run them, and the results are written down."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from rayprune.config import Study
from rayprune.distributed.actor import MAX_WAITING, LedgerActor
from rayprune.distributed.capacity import num_slots, unmet
from rayprune.distributed.connection import connected
from rayprune.distributed.groups import make_tags
from rayprune.distributed.head import ON_HEAD, start
from rayprune.distributed.place import Place
from rayprune.distributed.shared import write_token
from rayprune.distributed.slots import Slots
from rayprune.distributed.trial import RETRAIN_EPOCHS, Withdraw, run_trial
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import Changes, ProgressLog, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.trials import TrialPlan

Kept = TypeVar("Kept")

WATCH_EVERY_S = 0.5
NODES_EVERY_S = 5.0
TRIAL_DEATHS = 8  # how often the process of a trial, which only waits, is started again

log = logging.getLogger(__name__)


def search(
    recorder: Recorder,
    on_progress: Callable[[StudyProgress], None],
    keep: Callable[[pa.Table], Kept],
) -> Kept:
    """Run the trials of a study that are not finished; return what `keep` makes of its table.

    `on_progress` is called twice a second. The table is written whenever a trial ends, so nothing
    finished is lost; `keep` has the last one before anything is shut down. Raises ``StorageError``
    when the storage cannot be written, ``RayStoppedError``.
    """
    study = recorder.study
    recorder.write_study()
    # The output of Tune in which verbose=0 is silent; and Ctrl-C is the caller's, not Tune's, which
    # would return as if all were well. Who calls us restores the environment.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    with (
        connected() as is_ours,
        TemporaryDirectory(prefix="rayprune-", ignore_cleanup_errors=True) as ray_folder,
    ):
        trials = _trials(recorder)
        tags = make_tags(num_slots(study.scaling, len(recorder.pending), ray.nodes()))
        ledger = start(
            LedgerActor,
            recorder.storage,
            tags,
            study.scaling.max_failures,
            max_concurrency=MAX_WAITING,
        )
        token = write_token(recorder.folder)
        place = Place(ledger, recorder.storage, recorder.folder, token, ray_folder)
        progress = ProgressLog(recorder.found, recorder.stopped, num_parallel=len(tags))
        watch = _Watch(ledger, trials, recorder, progress, on_progress)
        # Enough trials that no slot waits for Tune, few enough that their processes stay cheap.
        concurrent = study.search.max_concurrent or len(tags) + 2
        watch()
        for trial in recorder.pending[:concurrent]:  # the first slot has work at once
            ledger.submit.remote(trial.name)
        slots = Slots(tags, place, study.scaling)
        try:
            with _repeated(watch, slots.look):
                slots.wait_for_first()
                _run_trials(recorder, trials, place, concurrent, progress.give_up)
                ray.get(ledger.close.remote())
            watch()
            watch()  # who was given up shows from the second time on: finished counts more
            kept = keep(recorder.write(progress.progress))
        except BaseException:
            recorder.write(progress.progress)  # what is unfinished now says so
            if not is_ours:
                slots.kill()
            raise
        if not is_ours:
            slots.end()
        return kept


def _trials(recorder: Recorder) -> Sequence[TrialPlan]:
    """What Tune is to run: early stopping compares with trials that ended before, too."""
    if recorder.study.search.scheduler is None:
        return recorder.pending
    pending = {trial.name for trial in recorder.pending}
    return [trial for trial in recorder.trials if trial.name not in pending] + [*recorder.pending]


def _run_trials(
    recorder: Recorder,
    trials: Sequence[TrialPlan],
    place: Place,
    concurrent: int,
    give_up: Callable[[TrialStatus], None],
) -> None:
    """Tune schedules trials that take no CPU: they only wait for stages."""
    study, metric, ledger = recorder.study, recorder.study.search.metrics[0], place.ledger
    trainable = tune.with_parameters(
        run_trial, ledger=ledger, metric=metric, replays=_replays(recorder.stopped, metric)
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0, **ON_HEAD}),
        param_space={"trial": tune.grid_search([trial.name for trial in trials])},
        tune_config=tune.TuneConfig(
            metric=metric,
            mode=study.search.modes[0],
            scheduler=_scheduler(study, trials),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=place.ray_folder,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_DEATHS),
            callbacks=[Withdraw(ledger, trials, metric, give_up)],
        ),
    )
    tuner.fit()


def _replays(
    stopped: Mapping[str, TrialStatus], metric: str
) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """What stopped trials reported, as they reported it."""
    return {name: status.reported for name, status in stopped.items()}


def _scheduler(study: Study, trials: Sequence[TrialPlan]) -> ASHAScheduler | None:
    if study.search.scheduler is None:
        return None
    early = study.search.scheduler.arguments
    lengths = [sum(s.epochs for s in trial.plan if not s.is_dense) for trial in trials]
    return ASHAScheduler(
        time_attr=RETRAIN_EPOCHS,
        max_t=max(1, *lengths),
        grace_period=early.get("grace_period", 1),
        reduction_factor=early.get("reduction_factor", 3),
    )


class _Watch:
    """Asks the ledger for what is new, writes it down and shows it; tells a new one the plans."""

    def __init__(
        self,
        ledger: Any,
        trials: Sequence[TrialPlan],
        recorder: Recorder,
        progress: ProgressLog,
        on_progress: Callable[[StudyProgress], None],
    ) -> None:
        self._ledger, self._trials, self._recorder = ledger, trials, recorder
        self._progress, self._on_progress = progress, on_progress
        self._scaling = recorder.study.scaling
        self._known = Changes(ledger="", version=0, stages={})
        self._complaint = self._missing = ""
        self._looked_s = -NODES_EVERY_S

    def __call__(self) -> None:
        """What fails is tried again the next time, and said once."""
        try:
            asking = self._ledger.changes.remote(self._known.ledger, self._known.version)
            before, self._known = self._known, ray.get(asking)
            if before.ledger != self._known.ledger:  # it was started, maybe again
                self._ledger.learn.remote(self._trials)
            progress = self._progress.take(self._known)
            progress = replace(progress, notes=[*progress.notes, *self._what_is_missing()])
            self._recorder.update(progress)
            self._on_progress(progress)
        except Exception as error:  # what only informs does not end a study
            reason = str(error).strip().split("\n")[0]
            complaint = f"progress could not be shown, and is asked for again: {reason}"
            if complaint != self._complaint:
                log.warning("%s", complaint)
            self._complaint = complaint

    def _what_is_missing(self) -> Sequence[str]:
        """A slot that no node can hold is named when that is new: it may wait for ever."""
        if time.monotonic() - self._looked_s < NODES_EVERY_S:
            return ()
        self._looked_s = time.monotonic()
        before, self._missing = self._missing, unmet(self._scaling, ray.nodes()) or ""
        return [self._missing] if self._missing not in ("", before) else ()


@contextmanager
def _repeated(*actions: Callable[[], None]) -> Iterator[None]:
    """While open, a thread calls the actions again and again."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(WATCH_EVERY_S):
            for action in actions:
                action()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
