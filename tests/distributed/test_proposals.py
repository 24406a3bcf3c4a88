"""A searcher's points become trials, and what trials come to is told to the searcher."""

import json

import pytest
from ray.tune.search import Searcher

from rayprune.config import Study
from rayprune.distributed.proposals import Listed, Searched, known_points
from rayprune.distributed.trial import FAILED, GOAL
from rayprune.results.proposed import Proposal
from rayprune.trials import make_trials

METRIC, LR = "val_accuracy", "optim.lr"
A, B, C = ({LR: lr} for lr in (0.1, 0.2, 0.3))


class MadeSearcher(Searcher):
    """Proposes these answers, and keeps all that it is told."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.on_the_way, self.learned = list(answers), [], []

    def suggest(self, trial_id):
        return self.answers.pop(0) if self.answers else {LR: 0.9}

    def on_trial_result(self, trial_id, result):
        self.on_the_way.append((trial_id, result[METRIC]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.learned.append((trial_id, "error" if error else result))

    def save(self, checkpoint_path):
        raise AssertionError("nothing restores it")

    restore = save


class MadeStudy:
    """Makes trials of points, and knows in which order."""

    def __init__(self, known=(), **search):
        space = {LR: {"uniform": [0.01, 1.0]}}
        fields = {"algorithm": "optuna", "space": space, "num_samples": 3, **search}
        self.study = Study.model_validate({"search": fields})
        self.proposals, self.new = [], []
        self.known = [self._made(point, seed) for point, seed in known]

    def _made(self, point, seed):
        proposal = Proposal(str(len(self.proposals)), point, seed)
        self.proposals.append(proposal)
        return proposal, proposal.make_trial(self.study)

    def propose(self, point, seed):
        self.new.append((point, seed))
        return self._made(point, seed)[1]

    def searched(self, searcher):
        return Searched(
            searcher, self.study.search, known_points(self.known), self.propose, lambda: 100
        )


def drained(searched, limit=20):
    """The configs of all trials that there are, in order."""
    configs = []
    for number in range(limit):
        config = searched.suggest(f"t{number}")
        if config == Searcher.FINISHED:
            return configs
        configs.append(config)
    raise AssertionError("it does not end")


def names(configs):
    return [config["trial"] for config in configs]


def test_points_are_there_as_often_as_they_were_proposed_whatever_their_seeds():
    a, b = {LR: 0.1}, {LR: 0.2}
    said = [(a, 0), (a, 1), (b, 0), (b, 1), (a, 0), (a, 1), (b, 2)]
    points = known_points(MadeStudy(said).known)
    assert [each.point for each in points] == [a, b, a]
    assert [list(each.trials) for each in points] == [[0, 1], [0, 1, 2], [0, 1]]
    assert known_points([]) == []


# ---- a list ----


def test_a_list_is_handed_out_in_its_order_with_the_searched_values_and_ends():
    space = {"retrain.epochs": {"grid": [1, 2, 3]}}
    listed = Listed(make_trials(Study.model_validate({"search": {"space": space}})), lambda: 100)
    assert drained(listed) == [
        {"trial": str(number), "retrain.epochs": number + 1} for number in range(3)
    ]
    assert listed.suggest("late") == Searcher.FINISHED
    listed.on_trial_complete("t0", {METRIC: 0.5})


def test_what_tune_writes_down_is_an_empty_file(tmp_path):
    Listed((), lambda: 1).save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""


# ---- how many, and which ----


def test_there_are_as_many_points_as_samples():
    study = MadeStudy(num_samples=3)
    assert drained(study.searched(MadeSearcher(A, B, C))) == [
        {"trial": str(number), **point} for number, point in enumerate((A, B, C))
    ]
    assert study.new == [(A, None), (B, None), (C, None)]


@pytest.mark.parametrize("answer", [None, Searcher.FINISHED])
def test_a_searcher_that_waits_or_has_ended_is_believed(answer):
    searched = MadeStudy(num_samples=1).searched(MadeSearcher(answer, A))
    assert searched.suggest("t0") == answer
    assert searched.suggest("t0") == {"trial": "0", **A}, "nothing was counted"


def test_what_is_known_comes_first_and_is_not_proposed_anew():
    study = MadeStudy(known=[(A, None), (B, None)], num_samples=3)
    near_b = {LR: B[LR] * (1 + 1e-12)}  # a searcher may not keep the last bits
    assert names(drained(study.searched(MadeSearcher(A, near_b, C)))) == ["0", "1", "2"]
    assert study.new == [(C, None)]


def test_what_is_known_is_told_even_where_fewer_samples_are_asked_for():
    study = MadeStudy(known=[(A, None), (B, None), (C, None)], num_samples=1)
    assert names(drained(study.searched(MadeSearcher(A, B, C)))) == ["0", "1", "2"]
    assert study.new == []


def test_a_point_that_is_proposed_again_has_a_trial_of_its_own():
    """Tune knows trials by their name, and as many are promised as there are samples."""
    study = MadeStudy(known=[(A, None)], num_samples=3)
    assert names(drained(study.searched(MadeSearcher(A, A, A)))) == ["0", "1", "2"]


def test_what_was_proposed_twice_counts_twice():
    study = MadeStudy(known=[(A, None), (A, None), (B, None)], num_samples=4)
    assert names(drained(study.searched(MadeSearcher(A, A, B, C)))) == ["0", "1", "2", "3"]
    assert study.new == [(C, None)]


# ---- seeds ----


def test_every_point_is_run_with_every_seed():
    study = MadeStudy(num_samples=2, seeds=[4, 5])
    configs = drained(study.searched(MadeSearcher(A, B)))
    assert study.new == [(A, 4), (A, 5), (B, 4), (B, 5)]
    assert [config["seed"] for config in configs] == [4, 5, 4, 5]


def test_a_seed_that_was_added_is_run_at_the_points_that_are_known():
    """Exactly there, so that seeds are paired."""
    study = MadeStudy(known=[(A, 4), (B, 4)], num_samples=2, seeds=[4, 5])
    near_a = {LR: A[LR] * (1 + 1e-12)}
    assert names(drained(study.searched(MadeSearcher(near_a, B)))) == ["0", "2", "1", "3"]
    assert study.new == [(A, 5), (B, 5)]


# ---- what a searcher learns ----


@pytest.fixture
def searcher():
    return MadeSearcher(A, B)


def test_a_point_with_several_seeds_is_learned_once_as_their_mean(searcher):
    searched = MadeStudy(seeds=[0, 1]).searched(searcher)
    for trial in ("one", "two"):
        searched.suggest(trial)
    searched.on_trial_complete("two", {METRIC: 0.5, "pid": 7})
    assert searcher.learned == []
    searched.on_trial_complete("one", {METRIC: 0.7, "pid": 8})
    assert searcher.learned == [("one", {METRIC: pytest.approx(0.6), "pid": 8})]


def test_several_goals_have_a_mean_each(searcher):
    searched = MadeStudy(seeds=[0, 1], metric=[METRIC, "val_loss"]).searched(searcher)
    for trial in ("one", "two"):
        searched.suggest(trial)
    searched.on_trial_complete("one", {METRIC: 0.5, "val_loss": 3.0})
    searched.on_trial_complete("two", {METRIC: 0.7, "val_loss": 1.0})
    assert searcher.learned == [("one", {METRIC: pytest.approx(0.6), "val_loss": 2.0})]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (None, True),
        ({METRIC: 0.5}, True),
        (None, False),
        ({"val_loss": 0.1}, False),
        ({METRIC: 0.5, FAILED: "it diverged"}, False),
    ],
    ids=["its process died", "later", "no result", "without the goal", "a verdict"],
)
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_a_point_with_a_failed_seed_is_an_error_whatever_the_others_came_to(
    searcher, result, error, order
):
    searched = MadeStudy(seeds=[0, 1]).searched(searcher)
    for trial in ("one", "two"):
        searched.suggest(trial)
    searched.on_trial_complete(order[0], result, error)
    searched.on_trial_complete(order[1], {METRIC: 0.9})
    assert searcher.learned == [("one", "error")]


def test_within_a_loss_of_dense_the_goal_is_what_is_learned(searcher):
    searched = MadeStudy(within_dense=0.01).searched(searcher)
    searched.suggest("one")
    searched.on_trial_complete("one", {METRIC: 0.5, GOAL: 0.8})
    searched.suggest("two")
    searched.on_trial_complete("two", {METRIC: 0.5})
    assert searcher.learned == [("one", {METRIC: 0.5, GOAL: 0.8}), ("two", "error")]


def result(phase, value=0.5, **more):
    return {"phase": phase, METRIC: value, **more}


def test_values_of_retraining_are_told_on_the_way(searcher):
    searched = MadeStudy().searched(searcher)
    searched.suggest("one")
    for phase, value in (("dense", 0.1), ("dense", 0.2), ("retrain", 0.3), ("retrain", 0.4)):
        searched.on_trial_result("one", result(phase, value))
    searched.on_trial_result("one", {FAILED: "it diverged"})
    assert searcher.on_the_way == [("one", 0.3), ("one", 0.4)]


@pytest.mark.parametrize(
    "search", [{"seeds": [0, 1]}, {"metric": [METRIC, "val_loss"]}], ids=["seeds", "goals"]
)
def test_a_mean_and_several_goals_have_no_value_on_the_way(searcher, search):
    searched = MadeStudy(**search).searched(searcher)
    for trial in ("one", "two"):
        searched.suggest(trial)
    searched.on_trial_result("one", result("retrain", val_loss=0.1))
    searched.on_trial_complete("one", result("retrain", val_loss=0.1))
    searched.on_trial_result("two", result("retrain", val_loss=0.1))
    assert searcher.on_the_way == []


def test_a_point_that_cannot_be_run_is_a_trial_all_the_same():
    """It says why it failed, and the searcher hears of an error."""
    study = MadeStudy(num_samples=1)
    (config,) = drained(study.searched(MadeSearcher({LR: -1.0})))
    assert config["trial"] == "0" and json.dumps(config)
    assert study.proposals[0].make_trial(study.study).mistake
