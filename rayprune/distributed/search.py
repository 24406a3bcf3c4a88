"""A study on Ray: Tune's trials want stages, slots run them, and the results are written down."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from rayprune.config import Study
from rayprune.distributed.actor import ON_HEAD, LedgerActor
from rayprune.distributed.connection import connected, num_slots
from rayprune.distributed.slots import Slots
from rayprune.distributed.trial import RETRAIN_EPOCHS, Withdraw, run_trial
from rayprune.results.files import ray_folder
from rayprune.results.progress import StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.storage import StorageError
from rayprune.trials import TrialPlan

WATCH_EVERY_S = 0.5

log = logging.getLogger(__name__)


def search(recorder: Recorder, on_progress: Callable[[StudyProgress], None]) -> pa.Table:
    """Run the trials of a study that are not finished; return its table.

    `on_progress` is called twice a second. The table is written whenever a trial ends, so nothing
    finished is lost. Raises ``StorageError`` when the storage cannot be written.
    """
    study, pending = recorder.study, recorder.pending
    recorder.write_study()
    # The output of Tune in which verbose=0 is silent; who calls us restores the environment.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    with connected():
        count = num_slots(study.scaling, len(pending))
        ledger = LedgerActor.options(max_concurrency=10_000).remote(  # type: ignore[attr-defined]
            recorder.storage, count
        )
        # Enough trials that no slot waits for Tune, few enough that their processes stay cheap.
        concurrent = study.search.max_concurrent or count + 2
        for trial in pending[:concurrent]:  # what Tune will start with: the first slot has work
            ledger.submit.remote(trial.name, trial.experiment, trial.plan)
        folder = ray_folder(recorder.folder)
        slots = Slots(ledger, count, study.scaling, recorder.storage, folder)
        with _repeated(lambda: _watch(ledger, recorder, on_progress)):
            try:
                slots.wait_for_first()
                _run_trials(study, pending, ledger, concurrent, folder)
            finally:
                ray.get(ledger.close.remote())
        table = recorder.write(ray.get(ledger.progress.remote()))
        _watch(ledger, recorder, on_progress)  # the last word on every trial
        slots.join()
        return table


def _run_trials(
    study: Study, trials: Sequence[TrialPlan], ledger: Any, concurrent: int, folder: str
) -> None:
    """Tune schedules trials that take no CPU: they only wait for stages."""
    plans = {trial.name: trial for trial in trials}
    trainable = tune.with_parameters(
        run_trial, plans=plans, ledger=ledger, metric=study.search.metric
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0, **ON_HEAD}),
        param_space={"trial": tune.grid_search(list(plans))},
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode=study.search.mode,
            scheduler=_scheduler(study, trials),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=folder,
            verbose=0,
            callbacks=[Withdraw(ledger)],
        ),
    )
    tuner.fit()


def _scheduler(study: Study, trials: Sequence[TrialPlan]) -> ASHAScheduler | None:
    early = study.search.early_stop
    if early is None:
        return None
    lengths = [sum(s.epochs for s in trial.plan if not s.is_dense) for trial in trials]
    return ASHAScheduler(
        time_attr=RETRAIN_EPOCHS,
        max_t=max(1, *lengths),
        grace_period=early.grace_epochs,
        reduction_factor=early.reduction,
    )


@contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    """While open, a thread calls `action` again and again."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(WATCH_EVERY_S):
            action()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(ledger: Any, recorder: Recorder, on_progress: Callable[[StudyProgress], None]) -> None:
    """Write down what is new and show it; a write that fails is tried again the next time."""
    try:
        told = ray.get(ledger.progress.remote())
        progress = replace(told, stages={**recorder.found, **told.stages})
        recorder.update(progress)
        on_progress(progress)
    except (StorageError, ray.exceptions.RayError) as error:
        log.warning("progress was not written, the study goes on: %s", error)
