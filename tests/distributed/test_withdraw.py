"""A trial that Tune ends or pauses wants nothing any more, and what Tune heard of it is kept."""

from types import SimpleNamespace

import pytest
from asked import Asked
from made_trials import METRIC, search_of

from rayprune.distributed.trial import CYCLES_DONE, FAILED, GOAL, ITERATION, RETRAIN_EPOCHS
from rayprune.distributed.withdraw import Withdraw

ASHA = {"scheduler": "asha"}


class TuneTrial:
    """What Tune shows to callbacks of one that runs."""

    def __init__(self, name="a", status="RUNNING"):
        self.config, self.status, self.last_result, self.errors = {"trial": name}, status, None, []

    def handle_error(self, error):
        self.errors.append(str(error))


@pytest.fixture
def given_up():
    return []


@pytest.fixture
def make(given_up):
    """A callback for a search with these fields; its ledger keeps the words."""

    def make(**search):
        ledger = Asked(SimpleNamespace(withdraw=lambda name: None))
        return Withdraw(ledger, search_of(**search), given_up.append)

    return make


def result(epochs, step=None, **more):
    """What a trial reports after so many epochs of retraining, two dense ones before."""
    return {
        ITERATION: epochs + 2 if step is None else step,
        "phase": "retrain" if epochs else "dense",
        RETRAIN_EPOCHS: epochs,
        CYCLES_DONE: epochs // 3,
        METRIC: epochs / 10,
        "pid": 7,
        **more,
    }


def tell(callback, trial, *results):
    for each in results:
        trial.last_result = each
        callback.on_trial_result(0, [], trial, each)


def test_a_stopped_trial_keeps_what_a_later_start_reports_again(make, given_up):
    callback, trial = make(**ASHA), TuneTrial()
    tell(callback, trial, result(0, step=1), result(0, step=2), result(1), result(2))
    callback.on_trial_complete(0, [], trial)
    (status,) = given_up
    assert (status.name, status.status) == ("a", "stopped")
    assert status.reason == "asha stopped it after 2 epochs of retraining"
    assert status.reported == (
        {ITERATION: 3, RETRAIN_EPOCHS: 1, CYCLES_DONE: 0, METRIC: 0.1},
        {ITERATION: 4, RETRAIN_EPOCHS: 2, CYCLES_DONE: 0, METRIC: 0.2},
    ), "of retraining alone, and what schedulers look at"


def test_all_goals_and_how_sparse_are_kept(make, given_up):
    callback, trial = make(metric=[METRIC, "sparsity"]), TuneTrial()
    tell(callback, trial, result(1), result(2, sparsity=0.9, goal=0.7))
    callback.on_trial_complete(0, [], trial)
    known = [{METRIC, "sparsity", GOAL} & set(each) for each in given_up[0].reported]
    assert known == [{METRIC}, {METRIC, "sparsity", GOAL}]


def test_who_stopped_it_is_named(make, given_up):
    for search in ({"scheduler": "median_stopping_rule"}, {}):
        make(**search).on_trial_complete(0, [], TuneTrial())
    assert [status.reason for status in given_up] == [
        "median_stopping_rule stopped it after 0 epochs of retraining",
        "a stopper stopped it after 0 epochs of retraining",
    ]


def test_an_epoch_that_was_reported_twice_is_kept_once(make, given_up):
    """As by a trial whose process died and was started again."""
    callback, trial = make(), TuneTrial()
    tell(callback, trial, *(result(epochs) for epochs in (1, 2, 1, 2, 3)))
    callback.on_trial_error(0, [], trial)
    assert [each[RETRAIN_EPOCHS] for each in given_up[0].reported] == [1, 2, 3]
    assert given_up[0].status == "unfinished"
    assert "its Ray Tune process died again and again" in given_up[0].reason


def test_what_is_replayed_is_kept_again_as_it_was(make, given_up):
    """So it goes on being known, however often the study is started."""
    for _ in range(3):
        before = given_up[-1].reported if given_up else [result(1), result(2)]
        callback, trial = make(), TuneTrial()
        tell(callback, trial, *before)
        callback.on_trial_complete(0, [], trial)
    assert given_up[0] == given_up[1] == given_up[2]


def test_trials_are_kept_apart(make, given_up):
    callback, one, two = make(), TuneTrial("one"), TuneTrial("two")
    tell(callback, one, result(1))
    tell(callback, two, result(1), result(2))
    for trial in (one, two):
        callback.on_trial_complete(0, [], trial)
    assert [(status.name, len(status.reported)) for status in given_up] == [("one", 1), ("two", 2)]


def test_a_failure_is_an_error_of_the_trial_in_tunes_own_results(make, given_up):
    callback, trial = make(), TuneTrial()
    tell(callback, trial, result(1), {FAILED: "it diverged"})
    assert trial.errors == ["it diverged"]
    callback.on_trial_complete(0, [], trial)
    assert [each[RETRAIN_EPOCHS] for each in given_up[0].reported] == [1]
    assert (given_up[0].status, given_up[0].reason) == ("failed", "it diverged")


@pytest.mark.parametrize("end", ["on_trial_complete", "on_trial_error"])
def test_whatever_ends_a_trial_it_wants_nothing_any_more(make, end):
    callback = make()
    getattr(callback, end)(0, [], TuneTrial())
    assert callback._ledger.words == [("withdraw", "a")]


def test_a_trial_that_is_paused_wants_nothing_until_it_goes_on(make, given_up):
    """It submits its plan again when it does."""
    callback, runs, paused = make(), TuneTrial("runs"), TuneTrial("paused")
    tell(callback, runs, result(1))
    tell(callback, paused, result(1))
    paused.status = "PAUSED"
    callback.on_step_end(0, [runs, paused])
    callback.on_step_end(1, [runs, paused])
    assert callback._ledger.words == [("withdraw", "paused")], "once"
    assert given_up == []


def test_what_tune_writes_down_holds_no_ledger(make):
    assert make().__getstate__() == {}
