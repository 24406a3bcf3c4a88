"""A study on Ray: Tune's trials want stages, slots run them, and the results are written down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from rayprune import results
from rayprune.config import Scaling, Study
from rayprune.distributed.actor import ON_HEAD, LedgerActor, View, connect, num_slots
from rayprune.distributed.ledger import StageState
from rayprune.distributed.slots import run_slot
from rayprune.distributed.trial import Withdraw, run_trial
from rayprune.results.files import default_storage
from rayprune.results.outcome import Outcome, write_outcome, write_study
from rayprune.results.record import StageRecord
from rayprune.trials import TrialPlan

VIEW_EVERY_S = 0.5
SLOT_START_S = 30.0  # how long all else lets the first slot start alone
SLOT_END_S = 10.0  # how long slots may take to end before Ray is shut down around them


def search(
    study: Study, trials: Sequence[TrialPlan], *, show: Callable[[View], None] = lambda view: None
) -> Outcome:
    """Run every trial of a study; stages that are done, here or by an earlier start, are not rerun.

    `show` is called twice a second with how far everything is. The results table is written
    whenever a trial ends, so nothing finished is lost. Raises ``StorageError`` when the storage
    cannot be written.
    """
    storage = default_storage(study)
    folder = results.study_folder(storage, study.name)
    write_study(study, storage)
    book = _Book(study, trials, storage)
    pending = book.pending()
    if not pending:  # an earlier start or another study has done every stage: needs no Ray
        outcome = book.outcome()
        write_outcome(outcome)
        return outcome
    started_here = connect()
    try:
        ledger = LedgerActor.options(max_concurrency=10_000).remote(storage)  # type: ignore[attr-defined]
        book.follow(ledger)
        count = num_slots(study.scaling, len(pending))
        # Enough trials that no slot waits for Tune, few enough that their processes stay cheap.
        concurrent = study.search.max_concurrent or count + 2
        for trial in pending[:concurrent]:  # what Tune will start with: the first slot has work
            ledger.submit.remote(trial.name, trial.experiment, trial.plan)
        slots = _Slots(ledger, count, study.scaling, storage, f"{folder}/.ray")
        stop_watching = _every(VIEW_EVERY_S, lambda: show(book.update()))
        try:
            slots.wait_for_first()
            _run_trials(study, pending, ledger, concurrent, f"{folder}/.ray")
        finally:
            ray.get(ledger.close.remote())
            stop_watching()
        show(book.update())
        outcome = book.outcome()
        write_outcome(outcome)
        slots.join()
        return outcome
    finally:
        if started_here:
            ray.shutdown()


def _run_trials(
    study: Study, trials: Sequence[TrialPlan], ledger: Any, concurrent: int, ray_folder: str
) -> None:
    """Tune schedules trials that take no CPU: they only wait for stages."""
    plans = {trial.name: trial for trial in trials}
    early = study.search.early_stop
    scheduler = None
    if early is not None:
        scheduler = ASHAScheduler(
            time_attr="retrain_epochs",
            max_t=max(1, *(sum(stage.epochs for stage in trial.plan[1:]) for trial in trials)),
            grace_period=early.grace_epochs,
            reduction_factor=early.reduction,
        )
    trainable = tune.with_parameters(
        run_trial, plans=plans, ledger=ledger, metric=study.search.metric
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0, **ON_HEAD}),
        param_space={"trial": tune.grid_search(list(plans))},
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode=study.search.mode,
            scheduler=scheduler,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=ray_folder,
            verbose=0,
            callbacks=[Withdraw(ledger)],
        ),
    )
    tuner.fit()


class _Slots:
    """The slots' threads: each holds one Ray Train run."""

    def __init__(
        self, ledger: Any, count: int, scaling: Scaling, storage: str, ray_folder: str
    ) -> None:
        self._ledger, self._alive, self._lock = ledger, count, threading.Lock()
        self._serve = partial(
            run_slot, ledger=ledger, scaling=scaling, storage=storage, ray_folder=ray_folder
        )
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), daemon=True) for slot in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_first(self) -> None:
        """Let the first slot start alone: processes that start at once slow each other down."""
        ray.wait([self._ledger.first_epoch_done.remote()], timeout=SLOT_START_S)

    def join(self) -> None:
        """Wait for the slots to end; Ray's shutdown ends those that hang."""
        deadline = time.monotonic() + SLOT_END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, slot: int) -> None:
        error = None
        if slot > 0:
            self.wait_for_first()
        try:
            if ray.get(self._ledger.has_work.remote()):
                self._serve(slot)
        except Exception as failure:  # whatever ended it, the trials must hear of it
            error = f"slot {slot} ended: {failure}"
        with self._lock:
            self._alive -= 1
            is_last = self._alive == 0
        self._ledger.slot_ended.remote(slot, error, is_last)


class _Book:
    """Writes results down while they come."""

    def __init__(self, study: Study, trials: Sequence[TrialPlan], storage: str) -> None:
        self._study, self._trials, self._storage = study, tuple(trials), storage
        self._ledger: Any = None
        self._view = View({}, {}, 0)
        self._found: dict[str, StageState] = {}
        self._finished: dict[str, tuple[StageRecord, ...]] = {}
        self._errors: dict[str, str] = {}
        self._executed_by: dict[str, str] = {}

    def pending(self) -> list[TrialPlan]:
        """The trials whose last stage the storage does not hold; the others are finished."""
        for trial in self._trials:
            key = trial.plan[-1].key
            records = results.finished_records(self._storage, key)
            if records is not None and results.load_snapshot(self._storage, key) is not None:
                self._finished[trial.name] = records
                for stage, record in zip(trial.plan, records, strict=True):
                    self._found[stage.key] = StageState("done", stage.epochs, record.metrics)
        return [trial for trial in self._trials if trial.name not in self._finished]

    def follow(self, ledger: Any) -> None:
        """Take what is new from this ledger from now on."""
        self._ledger = ledger

    def update(self) -> View:
        """How far everything is; a trial that has ended since the last call is in the table."""
        view: View = ray.get(self._ledger.view.remote())
        states, news = {**self._found, **view.states}, False
        self._view = replace(view, states=states)
        for trial in self._trials:
            if trial.name in self._finished or trial.name in self._errors:
                continue
            known = [states[stage.key] for stage in trial.plan if stage.key in states]
            errors = [state.error for state in known if state.error is not None]
            if errors:
                self._errors[trial.name] = errors[0]
            elif len(known) == len(trial.plan) and known[-1].status == "done":
                records = results.finished_records(self._storage, trial.plan[-1].key)
                assert records is not None, "a stage counts as done when it is durable"
                self._finished[trial.name] = records
                news = True
        if news:
            self._executed_by = ray.get(self._ledger.executed_by.remote())
            write_outcome(self.outcome())
        return self._view

    def outcome(self) -> Outcome:
        """What there is by now."""
        return Outcome(
            self._study,
            self._trials,
            self._storage,
            dict(self._finished),
            dict(self._errors),
            self._executed_by,
            self._view.executed_epochs,
        )


def _every(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    """Call `action` again and again in a thread; the function given back ends that.

    What an action raises ends the thread, and is raised by the function given back.
    """
    ended = threading.Event()
    failure: list[BaseException] = []

    def loop() -> None:
        try:
            while not ended.wait(seconds):
                action()
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()
        if failure:
            raise failure[0]

    return end
