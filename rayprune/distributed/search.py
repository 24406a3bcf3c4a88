"""A study on Ray: Tune's trials want stages, slots run them, and the results are written down."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback

from rayprune.config.goals import goals_of
from rayprune.distributed.actor import MAX_WAITING, LedgerActor
from rayprune.distributed.capacity import num_slots, unmet
from rayprune.distributed.head import ON_HEAD, start
from rayprune.distributed.place import Place
from rayprune.distributed.pool import SlotPool
from rayprune.distributed.proposals import Listed, Searched, Trials, known_points
from rayprune.distributed.searchers import make_scheduler, make_searcher
from rayprune.distributed.shared import write_token
from rayprune.distributed.tracking import finish_trackers, make_trackers
from rayprune.distributed.tracking.tracker import Tracker
from rayprune.distributed.trial import run_trial
from rayprune.distributed.withdraw import Withdraw
from rayprune.results.comparison import Comparison
from rayprune.results.progress import Changes, ProgressLog, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.trials import TrialPlan

Kept = TypeVar("Kept")

WATCH_EVERY_S = 0.5
NODES_EVERY_S = 5.0
FIRST_S = 30.0  # how long all else lets the first slot start alone
TRIAL_DEATHS = 8  # how often the process of a trial, which only waits, is started again
MANY = 1_000_000_000  # what Tune is told that a search may be long; the trials' own list ends it
TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # of Tune's outputs the one in which verbose=0 is silent
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # with it, Tune returns as if all were well
    # A trial may end without all metrics: it failed, or one of several goals is known at its end.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard's is another here
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneOptions:
    """What a caller hands on to Ray Tune."""

    callbacks: Sequence[tune.Callback] = ()
    stop: Any = None
    """As in Tune's RunConfig: a dictionary, a function or a Stopper."""


def search(
    recorder: Recorder,
    on_progress: Callable[[StudyProgress], None],
    keep: Callable[[pa.Table, Any], Kept],
    options: TuneOptions,
    *,
    is_ours: bool,
) -> Kept:
    """Run the trials of a study that are not finished; return what `keep` makes of its table.

    `on_progress` is called twice a second. The table is written whenever a trial ends, so nothing
    finished is lost; `keep` has the last one, and Tune's ResultGrid, before anything is shut down.
    `is_ours` says that Ray ends with this process's connection, and all that runs there with it.
    Raises ``StorageError`` when the storage cannot be written.
    """
    study = recorder.study
    recorder.write_study()
    os.environ.update(TUNE_SETTINGS)  # who calls us restores the environment
    # Ray's own files lie on the disk of this machine, so that a storage in trouble is none for
    # them. ResultGrid reads them, and keeps them for as long as it is there.
    ray_folder = TemporaryDirectory(prefix="rayprune-", ignore_cleanup_errors=True)
    scaling = study.scaling
    ledger = start(LedgerActor, study.name, recorder.storage, scaling, max_concurrency=MAX_WAITING)
    token = write_token(recorder.folder)
    nodes = ray.nodes()
    held = num_slots(scaling, nodes)
    # A Ray that was started here cannot grow; elsewhere an autoscaler may bring what is asked.
    is_fixed = is_ours and not os.environ.get("RAY_ADDRESS")
    place = Place(
        ledger=ledger,
        storage=recorder.storage,
        folder=recorder.folder,
        study=study.name,
        goals=goals_of(study),
        token=token,
        has_dashboard=not is_fixed,
        ray_folder=ray_folder.name,
    )
    most = scaling.slots or (held if is_fixed else None)
    pool = SlotPool(place, scaling, most, only_node=nodes[0]["NodeID"] if is_fixed else None)
    trackers = make_trackers(study, recorder.folder, ray_folder.name)
    plan = _TunePlan(recorder, place, options, trackers, lambda: _useful_trials(pool, held, most))
    progress = ProgressLog(recorder.found, recorder.stopped)
    watch = _Watch(plan, pool, progress, on_progress)
    watch()
    try:
        with _repeated(pool.look), _repeated(watch):
            if (
                plan.is_submitted and recorder.pending
            ):  # processes that start at once slow each other down
                ray.wait([ledger.first_epoch_done.remote()], timeout=FIRST_S)
            grid = plan.tuner(progress).fit()
            ray.get(ledger.close.remote())
        watch()
        watch()  # who was given up shows from the second time on: finished counts more
        if study.search.measure is not None and recorder.unmeasured:
            pool.wait_for_end()  # nothing of ours is to run beside what is measured
            from rayprune.distributed.measuring import measure_on_ray  # it loads torch

            measure_on_ray(recorder, progress.progress, on_progress)
        weakref.finalize(grid, ray_folder.cleanup)
        table = recorder.write(progress.progress)
        kept = keep(table, grid)
        best = Comparison.from_table(table).best
        finish_trackers(trackers, recorder.folder, None if best is None else best["trial"])
    except BaseException:
        recorder.write(progress.progress)  # what is unfinished now says so
        if not is_ours:
            pool.kill()
        raise
    if not is_ours:
        pool.end()
    return kept


def _useful_trials(pool: SlotPool, held: int, most: int | None) -> int:
    """Trials at a time that keep the slots busy, and let a cluster that may grow do so."""
    return most + 2 if most is not None else 2 * max(held, pool.num_slots) + 2


class _TunePlan:
    """What Tune is to run, and how."""

    def __init__(
        self,
        recorder: Recorder,
        place: Place,
        options: TuneOptions,
        trackers: Sequence[Tracker],
        num_useful: Callable[[], int],
    ) -> None:
        self.recorder, self.place = recorder, place
        self._options, self._trackers = options, trackers
        self._study = study = recorder.study
        search = study.search
        may_stop = search.scheduler is not None or options.stop is not None
        self.is_submitted = search.algorithm.is_listed and not may_stop
        """Whether all trials want their stages at once; else when Tune starts them."""
        # Who listens is to hear of epochs as they come; else a process for each trial is a waste.
        is_heard = not self.is_submitted or study.tracking or options.callbacks
        self._most, self._num_useful = search.max_concurrent, num_useful if is_heard else lambda: 2

    @property
    def to_submit(self) -> Sequence[str]:
        """Trials whose stages are wanted before Tune starts them, so that slots find work."""
        pending = [trial.name for trial in self.recorder.pending]
        return pending if self.is_submitted else pending[: self._limit()]

    def _limit(self) -> int:
        """How many trials are to wait for stages now."""
        return self._most or self._num_useful()

    def tuner(self, progress: ProgressLog) -> tune.Tuner:
        """Tune's trials take no CPU: they only wait for stages."""
        recorder, goals = self.recorder, goals_of(self._study)
        trainable = tune.with_parameters(
            run_trial,
            ledger=self.place.ledger,
            goals=goals,
            replays={name: status.reported for name, status in recorder.stopped.items()},
        )
        is_single = len(goals.metrics) == 1
        return tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, **ON_HEAD}),
            tune_config=tune.TuneConfig(
                metric=goals.tune_metric if is_single else None,
                mode=goals.tune_mode if is_single else None,
                search_alg=self._trials(),
                scheduler=make_scheduler(self._study, self._longest),
                num_samples=MANY,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self._study.name,
                storage_path=self.place.ray_folder,
                verbose=0,
                stop=self._options.stop,
                failure_config=tune.FailureConfig(max_failures=TRIAL_DEATHS),
                callbacks=[
                    Withdraw(self.place.ledger, self._study.search, progress.give_up),
                    *self._trackers,
                    *self._loggers(),
                ],
            ),
        )

    def _trials(self) -> Trials:
        """All that there are: what earlier starts have finished is told again, which is fast.

        So searchers and schedulers learn from it, and trackers and the ResultGrid have all of it.
        """
        recorder, search = self.recorder, self._study.search
        if not search.algorithm.is_listed:
            known = known_points(list(zip(recorder.proposals, recorder.trials, strict=True)))
            searcher = make_searcher(self._study, [each.point for each in known])
            return Searched(searcher, self._study, known, self._propose, self._limit)
        pending = recorder.pending  # read once: both may grow meanwhile, in the watching thread
        names = {trial.name for trial in pending}
        first = [*(trial for trial in recorder.trials if trial.name not in names), *pending]
        return Listed(first, self._limit, _More(recorder, len(first)))

    def _loggers(self) -> Sequence[tune.Callback]:
        """The caller's, and one that writes what the ResultGrid reads."""
        given = self._options.callbacks
        has_json = any(isinstance(callback, JsonLoggerCallback) for callback in given)
        return given if has_json else [*given, JsonLoggerCallback()]

    def _propose(self, point: Mapping[str, Any], seed: int | None) -> TrialPlan:
        trial = self.recorder.propose(point, seed)
        self.place.ledger.learn.remote([trial])
        return trial

    @property
    def _longest(self) -> int:
        """How far the longest trial goes, as the scheduler counts."""
        scheduler = self._study.search.scheduler
        in_cycles = scheduler is not None and scheduler.unit == "cycles"
        lengths = [
            sum(1 if in_cycles else stage.epochs for stage in trial.plan if not stage.is_dense)
            for trial in self.recorder.trials
        ]
        is_listed = self._study.search.algorithm.is_listed
        return max([1, *lengths]) if is_listed else MANY


class _More:
    """The trials that a study grows by while it runs: None while nobody knows, then none."""

    def __init__(self, recorder: Recorder, num_known: int) -> None:
        self._recorder, self._num_known = recorder, num_known

    def __call__(self) -> Sequence[TrialPlan] | None:
        is_whole = self._recorder.is_whole  # asked first: the last trials come before it is
        new = self._recorder.trials[self._num_known :]
        self._num_known += len(new)
        return new if new or is_whole else None


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


class _Watch:
    """Asks the ledger for what is new, writes it down and shows it; tells a new one the plans."""

    def __init__(
        self,
        plan: _TunePlan,
        pool: SlotPool,
        progress: ProgressLog,
        on_progress: Callable[[StudyProgress], None],
    ) -> None:
        self._plan, self._pool = plan, pool
        self._progress, self._on_progress = progress, on_progress
        self._scaling = plan.recorder.study.scaling
        self._known = Changes(ledger="", version=0, stages={})
        self._complaint = self._missing = ""
        self._looked_s = -NODES_EVERY_S

    def __call__(self) -> None:
        """What fails is tried again the next time, and said once."""
        ledger, recorder = self._plan.place.ledger, self._plan.recorder
        try:
            asking = ledger.changes.remote(self._known.ledger, self._known.version)
            before, self._known = self._known, ray.get(asking)
            if before.ledger != self._known.ledger:  # it was started, maybe again
                ledger.learn.remote(list(recorder.trials))
                if self._plan.to_submit:
                    ledger.submit.remote(*self._plan.to_submit)
            progress = replace(
                self._progress.take(self._known),
                num_parallel=max(1, self._pool.num_slots),
                trials=recorder.trials,
            )
            progress = replace(progress, notes=[*progress.notes, *self._what_is_missing()])
            recorder.update(progress)
            self._grow()
            self._on_progress(progress)
        except Exception as error:  # what only informs does not end a study
            reason = str(error).strip().split("\n")[0]
            complaint = f"progress could not be shown, and is asked for again: {reason}"
            if complaint != self._complaint:
                log.warning("%s", complaint)
            self._complaint = complaint

    def _grow(self) -> None:
        """What tuning has chosen is run."""
        ledger, new = self._plan.place.ledger, self._plan.recorder.grow()
        if new:
            ledger.learn.remote(list(new))
            if self._plan.is_submitted:
                ledger.submit.remote(*[trial.name for trial in new])

    def _what_is_missing(self) -> Sequence[str]:
        """A slot that no node can hold is named when that is new: it may wait for ever."""
        if self._pool.num_slots or time.monotonic() - self._looked_s < NODES_EVERY_S:
            return ()
        self._looked_s = time.monotonic()
        before, self._missing = self._missing, unmet(self._scaling, ray.nodes()) or ""
        return [self._missing] if self._missing not in ("", before) else ()


@contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    """While open, a thread calls the action again and again, whatever it raises."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            try:
                action()
            except Exception as error:  # Ray in trouble: the next time it may not be
                log.warning("a look at the study failed, and is tried again: %s", error)
            ended.wait(WATCH_EVERY_S)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
