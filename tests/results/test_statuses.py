"""How trials stand follows from their stages, and only what changed is looked at."""

import pytest
from counted import Counted

from rayprune.config import Study
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.statuses import NOT_YET, Statuses
from rayprune.trials import make_trials

DONE, RUNNING = StageProgress("done", 2), StageProgress("running", 1)
FAILED = StageProgress("failed", error="it diverged")


@pytest.fixture
def trials():
    """Four trials that share a dense run, two of them a first cycle too."""
    space = {"retrain.epochs": {"grid": [1, 2]}, "prune.cycles": {"grid": [1, 2]}}
    return make_trials(Study.model_validate({"search": {"space": space}}))


def ended(statuses):
    return [status.status for status in statuses.all]


def test_a_trial_ends_with_its_last_stage(trials):
    statuses = Statuses(trials)
    assert {(s.status, s.reason) for s in statuses.all} == {("unfinished", NOT_YET)}
    dense, last = (stage.key for stage in trials[0].plan)
    assert statuses.update(StudyProgress({dense: DONE})) == []
    assert statuses.update(StudyProgress({dense: DONE, last: RUNNING})) == []
    assert statuses.update(StudyProgress({dense: DONE, last: DONE})) == [trials[0]]
    assert statuses.of(trials[0]) == TrialStatus(name="0", status="finished", key=last)
    assert statuses.done(trials[0]) == [dense, last] and statuses.done(trials[3]) == [dense]


def test_a_stage_that_cannot_be_done_ends_all_trials_with_it(trials):
    statuses = Statuses(trials)
    dense = trials[0].plan[0].key
    gone = {"3": TrialStatus(name="3", status="stopped", reason="worse")}
    statuses.update(StudyProgress({trials[1].plan[-1].key: DONE}, given_up=gone))
    assert ended(statuses) == ["unfinished", "finished", "unfinished", "stopped"]
    changed = statuses.update(StudyProgress({dense: FAILED}))
    assert [trial.name for trial in changed] == ["0", "2", "3"], "what is finished stays so"
    assert statuses.of(trials[0]).reason == "it diverged"
    again = statuses.update(StudyProgress({dense: RUNNING}))
    assert [trial.name for trial in again] == ["0", "2", "3"]
    assert ended(statuses) == ["unfinished", "finished", "unfinished", "stopped"]


def test_a_finished_trial_whose_snapshot_was_lost_is_unfinished_again(trials):
    statuses = Statuses(trials)
    last = trials[2].plan[-1].key
    statuses.update(StudyProgress({last: DONE}))
    assert statuses.update(StudyProgress({last: StageProgress("wanted")})) == [trials[2]]
    assert ended(statuses) == ["unfinished"] * 4


@pytest.mark.parametrize("num_trials", [10, 300])
def test_a_change_costs_as_much_in_a_large_study_as_in_a_small_one(num_trials):
    space = {"optim.weight_decay": {"grid": [n / 1e4 for n in range(num_trials)]}}
    trials = make_trials(Study.model_validate({"search": {"space": space}}))
    states = Counted({stage.key: RUNNING for trial in trials for stage in trial.plan})
    statuses = Statuses(trials)
    statuses.update(StudyProgress(states))
    for key in (trials[5].plan[-1].key, trials[5].plan[0].key):
        states.asked = 0
        statuses.update(StudyProgress(states, changed=[key]))
        assert states.asked == 1
