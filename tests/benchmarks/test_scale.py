"""What a stage costs the ledger and the driver in a large study, and a trial Ray Tune.

pytest -m slow -s tests/benchmarks/test_scale.py

Stages of milliseconds, in this process; no time is asserted, but how often anything is looked at.
"""

import asyncio
import io
import os
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
import ray
from made_records import record
from rich.console import Console

from rayprune.config import Scaling, Study
from rayprune.config.goals import goals_of
from rayprune.console.progress import ProgressView
from rayprune.distributed import actor as module
from rayprune.distributed.actor import MAX_WAITING, LedgerActor
from rayprune.distributed.connection import connected
from rayprune.distributed.head import start
from rayprune.distributed.ledger import Ledger, Run, Stop
from rayprune.distributed.place import Place
from rayprune.distributed.search import TuneOptions, _TunePlan
from rayprune.plan import count_epochs
from rayprune.results.progress import ProgressLog
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage
from rayprune.results.statuses import Statuses
from rayprune.trials import make_trials

pytestmark = pytest.mark.slow

NUM_SLOTS, CYCLES, SHARING = 128, 5, 100
EPOCH_S, WATCH_EVERY_S = 0.001, 0.05
METRICS = {"val_accuracy": 0.5}
LOOKS = ("_is_ready", "_touch", "_follows", "state", "next_stage", "has_ready", "changes")
MOST_LOOKS = 50  # at a stage, of all kinds together


def make_study(num_trials, storage):
    """Groups of trials that share a dense run; every cycle is a trial's own."""
    sparsities = [0.9 + 0.0005 * number for number in range(SHARING)]
    experiment = {"prune": {"cycles": CYCLES}, "retrain": {"epochs": 1}, "dense": {"epochs": 2}}
    search = {
        "space": {"prune.sparsity": {"grid": sparsities}},
        "seeds": list(range(num_trials // SHARING)),
    }
    fields = {"name": "s", "experiment": experiment, "search": search, "storage": str(storage)}
    return Study.model_validate(fields)


@dataclass
class Simulation:
    """A study whose slots and trials are coroutines beside a ledger."""

    trials: tuple
    actor: LedgerActor
    finished: Counter = field(default_factory=Counter)
    heard: Counter = field(default_factory=Counter)
    driver_s: float = 0.0

    async def run(self):
        await self.actor.learn(self.trials)
        await self.actor.submit(*(trial.name for trial in self.trials))
        slots = [asyncio.create_task(self.slot(number)) for number in range(NUM_SLOTS)]
        driver = asyncio.create_task(self.driver())
        few = asyncio.Semaphore(NUM_SLOTS + 2)  # as Tune has it where someone listens
        await asyncio.gather(*(self.trial(trial, few) for trial in self.trials))
        await self.actor.close()
        await asyncio.gather(*slots)
        driver.cancel()

    async def slot(self, number):
        incarnation = await self.actor.join(number, number, 1, [f"node {number}"])
        for count in range(1_000_000):
            answer = await self.actor.next_stage(incarnation, count)
            if isinstance(answer, Stop):
                return
            if isinstance(answer, Run):
                await self.stage(incarnation, answer.stage)

    async def stage(self, incarnation, stage):
        for epoch in range(stage.epochs):
            await asyncio.sleep(EPOCH_S)
            history = [METRICS] * (epoch + 1)
            assert await self.actor.epoch_done(incarnation, stage.key, history, 1.0)
        self.finished[stage.key] += 1
        await self.actor.finished(incarnation, stage.key, None, METRICS)

    async def trial(self, trial, few):
        async with few:
            for stage in (await self.actor.submit(trial.name)).plan:
                heard = 0
                while True:
                    news = await self.actor.wait_for(stage.key, heard)
                    heard += len(news.history)
                    if news.progress.status == "done":
                        break
                self.heard[trial.name] += heard

    async def driver(self):
        log, statuses = ProgressLog({}), Statuses(self.trials)
        view = ProgressView(Console(file=io.StringIO()), self.trials, "val_accuracy")
        known = await self.actor.changes("", 0)
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            known = await self.actor.changes(known.ledger, known.version)
            await self.actor.useful_slots()
            started = time.process_time()
            progress = log.take(known)
            statuses.update(progress)
            view(progress)
            self.driver_s += time.process_time() - started


@pytest.fixture
def looks(monkeypatch):
    """How often the ledger looked at something."""
    counts = Counter()

    def counted(name, method):
        def look(*arguments):
            counts[name] += 1
            return method(*arguments)

        return look

    for name in LOOKS:
        monkeypatch.setattr(Ledger, name, counted(name, getattr(Ledger, name)))
    monkeypatch.setattr(module, "_dead_nodes", frozenset)
    return counts


def simulate(num_trials, storage):
    """CPU seconds of a stage in the ledger with its simulated callers, and in the driver."""
    trials = make_trials(make_study(num_trials, storage))
    simulation = Simulation(trials, LedgerActor("s", str(storage), Scaling()))
    started = time.process_time()
    asyncio.run(simulation.run())
    spent = time.process_time() - started - simulation.driver_s
    stages = {stage.key for trial in trials for stage in trial.plan}
    assert simulation.finished == dict.fromkeys(stages, 1), "every stage once"
    epochs = sum(stage.epochs for stage in trials[0].plan)
    assert simulation.heard == {trial.name: epochs for trial in trials}
    executed = simulation.actor._ledger.executed_epochs
    assert executed == count_epochs(trial.plan for trial in trials).unique
    return spent / len(stages), simulation.driver_s / len(stages), len(stages)


def test_a_stage(looks, tmp_path):
    costs = []
    for num_trials in (200, 2_000):
        looks.clear()
        ledger_s, driver_s, num_stages = simulate(num_trials, tmp_path)
        costs.append((ledger_s, driver_s))
        print(
            f"\n{num_stages:,} stages, {NUM_SLOTS} slots: a stage costs the ledger and who asks it "
            f"{ledger_s * 1e6:.0f} CPU us, the driver {driver_s * 1e6:.0f}; "
            f"looks {', '.join(f'{k} {n / num_stages:.1f}' for k, n in looks.items())}"
        )
        assert looks.total() <= MOST_LOOKS * num_stages
    (ledger, driver), (ledger_10, driver_10) = costs
    print(
        f"ten times the stages: {ledger_10 / ledger:.2f} times the cost of each in the ledger, "
        f"{driver_10 / driver:.2f} in the driver; load {os.getloadavg()[0]:.1f}"
    )


@pytest.fixture(scope="module")
def a_ray():
    with connected() as is_ours:
        yield is_ours


@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_trials", [25, 100])
def test_a_trial_of_tune(a_ray, num_trials, tmp_path, monkeypatch):
    """Every stage is finished in the storage, so a trial only submits, hears and reports."""
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    monkeypatch.setenv("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    study = make_study(SHARING, tmp_path)
    trials = make_trials(study)[:num_trials]
    for key in {stage.key for trial in trials for stage in trial.plan}:
        save_stage(str(tmp_path), key, b"", [record(key=key, metrics=METRICS)], [METRICS])
    recorder, progress = Recorder(study, trials), ProgressLog({})
    storage, scaling = str(tmp_path), Scaling()
    ledger = start(LedgerActor, study.name, storage, scaling, max_concurrency=MAX_WAITING)
    ledger.learn.remote(trials)
    place = Place(
        ledger=ledger,
        storage=storage,
        folder=recorder.folder,
        study=study.name,
        goals=goals_of(study),
        token="token",
        has_dashboard=False,
        ray_folder=str(tmp_path / "ray"),
    )
    plan = _TunePlan(recorder, place, TuneOptions(), [], lambda: 6)
    started, cpu_started = time.monotonic(), time.process_time()
    plan.tuner(progress).fit()
    spent, cpu = time.monotonic() - started, time.process_time() - cpu_started
    assert progress.progress.given_up.keys() == {trial.name for trial in trials}
    ray.kill(ledger)
    print(
        f"\n{num_trials} trials through Ray Tune: {spent / num_trials * 1e3:.0f} ms each, "
        f"{cpu / num_trials * 1e3:.0f} CPU ms of them the driver's; "
        f"load {os.getloadavg()[0]:.1f}"
    )
