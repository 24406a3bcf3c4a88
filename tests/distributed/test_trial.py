"""A trial reports every epoch after the dense run once and in order, whenever it hears of it."""

from types import SimpleNamespace

import pytest
import ray
from asked import Asked
from ray import tune

from rayprune.config import Experiment
from rayprune.distributed.actor import News
from rayprune.distributed.ledger import Ledger, Run
from rayprune.distributed.trial import RETRAIN_EPOCHS, Withdraw, run_trial
from rayprune.plan import make_plan
from rayprune.trials import TrialPlan

EXPERIMENT = Experiment.model_validate(
    {"prune": {"cycles": 2}, "retrain": {"epochs": 3}, "dense": {"epochs": 2}}
)
TRIAL = TrialPlan("a", {}, EXPERIMENT, make_plan(EXPERIMENT))
NUM_EPOCHS = 6  # of retraining
METRIC = "val_accuracy"


def value(stage, epoch):
    """What the metric is after an epoch, unlike that after any other."""
    return stage.cycle + epoch / 10


def history_of(stage, epochs):
    return [{METRIC: value(stage, epoch), "val_loss": 0.1} for epoch in range(1, epochs + 1)]


def final(stage):
    return {METRIC: value(stage, stage.epochs), "test_accuracy": 0.9}


EPOCHS = [
    (number, value(stage, epoch))
    for number, (stage, epoch) in enumerate(
        ((stage, epoch) for stage in TRIAL.plan[1:] for epoch in range(1, stage.epochs + 1)), 1
    )
]
"""(epochs of retraining, the metric), as they are to be reported."""


class Study:
    """A real ledger; its slot runs some more epochs each time that the trial asks for news."""

    def __init__(self, *steps):
        self.steps = list(steps) or [1] * 100
        self.found = {}
        self.start()

    def start(self):
        """A ledger that knows nothing, and after it a slot."""
        self.ledger, self.is_busy = Ledger(), False
        self.life, self.number = self.ledger.join(0), 0

    def submit(self, name):
        self.ledger.submit(name, EXPERIMENT, TRIAL.plan)
        for key, metrics in self.found.items():
            self.ledger.found(key, metrics, metrics[-1] if metrics else {})
        return TRIAL.plan

    def wait_for(self, key, heard):
        for _ in range(self.steps.pop(0) if self.steps else 1):
            self.run_epoch()
        if not self.ledger.knows(key):
            return None
        return News(self.ledger.state(key), self.ledger.history(key)[heard:])

    def run_epoch(self):
        if not self.is_busy:
            answer = self.ledger.next_stage(self.life, self.number)
            if not isinstance(answer, Run):
                return
            self.stage, self.number, self.is_busy = answer.stage, self.number + 1, True
        stage, done = self.stage, self.ledger.state(self.stage.key).epochs_done
        if done < stage.epochs:
            self.ledger.epoch_done(self.life, stage.key, history_of(stage, done + 1), 1.0)
        else:
            self.ledger.finished(self.life, stage.key, None, final(stage))
            self.is_busy = False


@pytest.fixture
def reported(monkeypatch):
    """What was reported to Tune."""
    results = []
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(tune, "report", results.append)
    return results


def run(study, replays=None):
    run_trial({"trial": "a"}, ledger=Asked(study), metric=METRIC, replays=replays or {})


def heard(reported):
    return [(result[RETRAIN_EPOCHS], result[METRIC]) for result in reported]


@pytest.mark.parametrize(
    "steps", [[1] * 100, [0, 2] * 50, [3] * 10, [5] * 10, [100]], ids=lambda steps: str(steps[:2])
)
def test_every_epoch_is_reported_once_and_in_order_however_late_it_listens(reported, steps):
    run(Study(*steps))
    assert heard(reported) == [*EPOCHS, EPOCHS[-1]]


def test_the_last_report_has_the_final_metrics(reported):
    run(Study())
    assert reported[-1] == {**final(TRIAL.plan[-1]), RETRAIN_EPOCHS: NUM_EPOCHS}
    assert "test_accuracy" not in reported[-2]


@pytest.mark.parametrize("when", range(1, 10))
def test_a_ledger_that_is_started_again_repeats_and_loses_no_report(reported, when):
    """What was finished before is found, and its stage goes on from its checkpoint."""
    study = Study()
    wait_for, asked = study.wait_for, []

    def restarted(key, heard):
        asked.append(key)
        if len(asked) == when:
            entries = study.ledger._entries.values()
            done = [e.stage for e in entries if e.progress.status == "done"]
            study.found = {stage.key: history_of(stage, stage.epochs) for stage in done}
            study.start()
        return wait_for(key, heard)

    study.wait_for = restarted
    run(study)
    assert heard(reported) == [*EPOCHS, EPOCHS[-1]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_stages_that_were_found_are_reported_again(reported, count):
    """So early stopping compares with what an earlier start has run."""
    study = Study()
    study.found = {stage.key: history_of(stage, stage.epochs) for stage in TRIAL.plan[:count]}
    run(study)
    assert heard(reported) == [*EPOCHS, EPOCHS[-1]]


def test_a_stage_whose_history_is_not_known_counts_all_the_same(reported):
    study = Study()
    study.found = {stage.key: [] for stage in TRIAL.plan[:2]}
    run(study)
    assert heard(reported) == [*EPOCHS[3:], EPOCHS[-1]]


def test_a_failed_stage_ends_the_trial(reported):
    study = Study()
    study.submit("b")
    study.ledger.abandon("no package")
    run(study)
    assert reported == []


def test_a_trial_that_fails_later_has_reported_what_was_run(reported):
    study = Study(*[1] * 6, 0)
    wait_for = study.wait_for

    def failing(key, heard):
        if not study.steps:
            study.ledger.failed(study.life, study.stage.key, "it diverged")
        return wait_for(key, heard)

    study.wait_for = failing
    run(study)
    assert heard(reported) == EPOCHS[: len(reported)] and reported


def test_a_result_without_the_metric_is_not_reported(reported, monkeypatch):
    """As where a stage has no epoch: Tune would refuse it."""
    study = Study()
    study.found = {stage.key: [{"val_loss": 0.1}] for stage in TRIAL.plan}
    run(study)
    assert reported == []


# ---- trials that end before their plan is done ----


@pytest.fixture
def given_up():
    return []


@pytest.fixture
def callback(given_up):
    withdrawn = SimpleNamespace(withdraw=lambda name: None)
    return Withdraw(Asked(withdrawn), [TRIAL], METRIC, given_up.append)


def tune_trial(last_result=None):
    return SimpleNamespace(config={"trial": "a"}, last_result=last_result)


def test_what_tune_heard_of_a_stopped_trial_is_what_it_replays(reported, callback, given_up):
    run(Study())
    for result in reported[:4]:
        callback.on_trial_result(0, [], tune_trial(), result)
    callback.on_trial_complete(0, [], tune_trial(reported[3]))
    (status,) = given_up
    assert (status.name, status.status, status.key) == ("a", "stopped", TRIAL.plan[-1].key)
    assert status.reason == "early stopping gave it up after 4 epochs of retraining"
    assert status.reported == tuple(EPOCHS[:4])
    replay = [{METRIC: number, RETRAIN_EPOCHS: epochs} for epochs, number in status.reported]
    study = Asked(Study())
    reported.clear()
    run_trial({"trial": "a"}, ledger=study, metric=METRIC, replays={"a": replay})
    assert heard(reported) == EPOCHS[:4] and study.words == [], "and wants nothing"


def test_an_epoch_that_was_reported_twice_is_replayed_once(callback, given_up):
    """As by a trial whose process died and was started again."""
    for epochs in (1, 2, 1, 2, 3):
        callback.on_trial_result(0, [], tune_trial(), {METRIC: 0.5, RETRAIN_EPOCHS: epochs})
    callback.on_trial_error(0, [], tune_trial())
    assert given_up[0].reported == ((1, 0.5), (2, 0.5), (3, 0.5))
    assert given_up[0].status == "unfinished"


@pytest.mark.parametrize("end", ["on_trial_complete", "on_trial_error"])
def test_whatever_ends_a_trial_it_wants_nothing_any_more(callback, end):
    getattr(callback, end)(0, [], tune_trial())
    assert callback._ledger.words == [("withdraw", "a")]


def test_what_tune_writes_down_holds_no_ledger(callback):
    assert callback.__getstate__() == {}
