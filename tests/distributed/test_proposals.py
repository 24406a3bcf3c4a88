"""A searcher's points become trials, and what trials come to is told to the searcher."""

import json
import math

import pytest
from ray.tune.search import Searcher

from rayprune.config import Study
from rayprune.distributed.proposals import Listed, Searched, known_points
from rayprune.distributed.search import TuneOptions, _TunePlan
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

    def searched(self, searcher, limit=lambda: 100):
        known = known_points(self.known)
        return Searched(searcher, self.study, known, self.propose, limit)


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


class GrowingRecorder:
    """Chooses a setting, in another thread, each time that somebody has looked at what is left."""

    def __init__(self, study):
        self.study, self.trials, self._more = study, [], list(make_trials(study))
        self._pending, self.is_whole = (), False
        self.grow()

    def grow(self):
        new, self._more = self._more[:2], self._more[2:]
        self.trials += new
        self._pending = (*self._pending, *new)
        self.is_whole = not self._more

    @property
    def pending(self):
        before = self._pending
        self.grow()
        return before


def test_what_is_chosen_while_tune_begins_is_handed_out_once():
    space = {"prune.cycles": {"grid": [1, 2, 3, 4, 5, 6]}}
    search = {"space": space, "max_concurrent": 100}
    recorder = GrowingRecorder(Study.model_validate({"search": search}))
    listed = _TunePlan(recorder, None, TuneOptions(), (), lambda: 100)._trials()
    recorder.grow()
    told = [listed.suggest(str(n)) for n in range(7)]
    assert sorted(config["trial"] for config in told[:6]) == list("012345")
    assert told[6] == Searcher.FINISHED


def test_what_tune_writes_down_is_an_empty_file(tmp_path):
    Listed((), lambda: 1).save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""


# ---- how many at a time ----


class Limit:
    """How many trials are useful at a time; a cluster grows, and loses nodes."""

    now = 2

    def __call__(self):
        return self.now


@pytest.fixture(params=["a list", "a searcher"])
def limited(request):
    """Where six trials come from, how many are known, and the limit of a time."""
    limit = Limit()
    if request.param == "a list":
        space = {"retrain.epochs": {"grid": [1, 2, 3, 4, 5, 6]}}
        plans = make_trials(Study.model_validate({"search": {"space": space}}))
        return Listed(plans, limit), limit
    study = MadeStudy(known=[(A, 0), (A, 1)], num_samples=3, seeds=[0, 1])
    return study.searched(MadeSearcher(A, B, C), limit), limit


def started(trials, *ids):
    """Which of these trials of Tune are handed one of ours."""
    return [trial_id for trial_id in ids if trials.suggest(trial_id) is not None]


def test_no_more_trials_than_the_limit_are_there_at_a_time(limited):
    trials, _ = limited
    assert started(trials, "a", "b", "c", "d") == ["a", "b"]
    assert started(trials, "c", "d") == []


def test_more_trials_are_there_as_the_limit_grows(limited):
    trials, limit = limited
    assert started(trials, "a", "b", "c") == ["a", "b"]
    limit.now = 5
    assert started(trials, "c", "d", "e", "f") == ["c", "d", "e"]


def test_where_the_limit_shrinks_trials_go_on_and_no_other_comes_before_enough_are_over(limited):
    trials, limit = limited
    limit.now = 3
    assert started(trials, "a", "b", "c") == ["a", "b", "c"]
    limit.now = 1
    for trial_id, others in (("a", []), ("b", []), ("c", ["d"])):
        trials.on_trial_complete(trial_id, {METRIC: 0.5})
        assert started(trials, "d") == others


@pytest.mark.parametrize(
    ("result", "error"), [({METRIC: 0.5}, False), ({FAILED: "it diverged"}, False), (None, True)]
)
def test_a_trial_that_is_over_makes_room_for_one_whatever_it_came_to(limited, result, error):
    trials, _ = limited
    assert started(trials, "a", "b") == ["a", "b"]
    trials.on_trial_complete("b", result, error)
    assert started(trials, "c", "d") == ["c"]


def test_a_limit_leaves_out_no_trial_and_hands_out_none_twice(limited):
    trials, _ = limited
    handed_out, waiting = [], [f"t{number}" for number in range(6)]
    while waiting:
        config = trials.suggest(waiting[0])
        if config is None:
            trials.on_trial_complete(f"t{len(handed_out) - 1}", {METRIC: 0.5})
            continue
        handed_out.append(config["trial"])
        waiting.pop(0)
    assert sorted(handed_out) == ["0", "1", "2", "3", "4", "5"]
    trials.on_trial_complete("t5", {METRIC: 0.5})
    assert trials.suggest("late") == Searcher.FINISHED


def test_a_searcher_is_not_asked_for_what_there_is_no_room_for():
    searcher = MadeSearcher(A, B)
    searched = MadeStudy().searched(searcher, lambda: 1)
    assert started(searched, "a", "b", "c") == ["a"]
    assert searcher.answers == [B]


@pytest.mark.parametrize("answer", [None, Searcher.FINISHED])
def test_an_answer_that_is_no_trial_takes_no_room(answer):
    searched = MadeStudy().searched(MadeSearcher(answer, answer, A), lambda: 1)
    assert [searched.suggest("a") for _ in range(3)] == [answer, answer, {"trial": "0", **A}]


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


def test_a_known_point_is_brought_to_its_end_with_seeds_that_the_study_no_longer_has():
    study = MadeStudy(known=[(A, 4), (A, 5), (B, 6)], num_samples=3, seeds=[5])
    assert names(drained(study.searched(MadeSearcher(A, B, C)))) == ["1", "0", "3", "2", "4"]
    assert study.new == [(B, 5), (C, 5)], "no other point is run with them"


@pytest.mark.parametrize(("before", "now"), [(None, 4), (4, None)])
def test_a_study_may_be_given_seeds_and_lose_them(before, now):
    study = MadeStudy(known=[(A, before)], num_samples=2, seeds=() if now is None else [now])
    configs = drained(study.searched(MadeSearcher(A, B)))
    assert names(configs) == ["1", "0", "2"]
    assert study.new == [(A, now), (B, now)]


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


NO_RESULT = {
    "its process died": (None, True),
    "it died later": ({METRIC: 0.5}, True),
    "nothing": (None, False),
    "without the goal": ({"val_loss": 0.1}, False),
    "no number": ({METRIC: math.nan}, False),
    "beyond all numbers": ({METRIC: -math.inf}, False),
    "a verdict": ({METRIC: 0.5, FAILED: "it diverged"}, False),
}


@pytest.mark.parametrize(("result", "error"), NO_RESULT.values(), ids=NO_RESULT)
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_a_point_with_a_failed_seed_is_as_bad_as_the_worst_whatever_the_others_came_to(
    searcher, result, error, order
):
    """Searchers learn nothing from an error, and would propose it again."""
    searched = MadeStudy(seeds=[0, 1]).searched(searcher)
    for trial in ("good", "its other seed", "one", "two"):
        searched.suggest(trial)
    for trial in ("good", "its other seed"):
        searched.on_trial_complete(trial, {METRIC: 0.3})
    searched.on_trial_complete(order[0], result, error)
    searched.on_trial_complete(order[1], {METRIC: 0.9})
    assert searcher.learned == [("good", {METRIC: 0.3}), ("one", {METRIC: 0.3})]


def over(searched, *trials):
    """These trials come to these results, one after the other; None is an error."""
    for trial_id, result in trials:
        searched.suggest(trial_id)
        searched.on_trial_complete(trial_id, result, error=result is None)


def test_points_without_a_result_are_kept_back_until_there_is_one(searcher):
    searched = MadeStudy().searched(searcher)
    over(searched, ("a", None), ("b", {FAILED: "it diverged"}))
    assert searcher.learned == []
    over(searched, ("c", {METRIC: 0.3}))
    assert searcher.learned[0] == ("c", {METRIC: 0.3})
    assert sorted(trial for trial, _ in searcher.learned[1:]) == ["a", "b"], "each of them once"
    assert [result for _, result in searcher.learned[1:]] == [{METRIC: 0.3}] * 2


def test_where_all_fail_nothing_is_learned_and_the_search_ends(searcher):
    searched = MadeStudy(num_samples=2).searched(searcher)
    over(searched, ("a", None), ("b", None))
    assert searched.suggest("c") == Searcher.FINISHED
    assert searcher.learned == []


def test_the_worst_is_that_of_all_results_until_then(searcher):
    searched = MadeStudy(num_samples=6).searched(searcher)
    good = [("a", {METRIC: 0.5}), ("b", {METRIC: 0.2}), ("c", {METRIC: 0.9})]
    over(searched, *good, ("d", None), ("e", {METRIC: 0.1}), ("f", None))
    assert searcher.learned == [
        *good,
        ("d", {METRIC: 0.2}),
        ("e", {METRIC: 0.1}),
        ("f", {METRIC: 0.1}),
    ]


def test_the_worst_of_several_goals_is_that_of_each(searcher):
    """A loss is the worse the higher it is."""
    searched = MadeStudy(num_samples=3, metric=[METRIC, "val_loss"]).searched(searcher)
    good = [("a", {METRIC: 0.5, "val_loss": 1.0}), ("b", {METRIC: 0.7, "val_loss": 3.0})]
    over(searched, *good, ("c", None))
    assert searcher.learned == [*good, ("c", {METRIC: 0.5, "val_loss": 3.0})]


def test_the_worst_of_points_with_several_seeds_is_the_worst_mean(searcher):
    searched = MadeStudy(seeds=[0, 1]).searched(searcher)
    over(searched, ("a", {METRIC: 0.1}), ("b", {METRIC: 0.5}), ("c", None), ("d", {METRIC: 0.9}))
    mean = {METRIC: pytest.approx(0.3)}
    assert searcher.learned == [("a", mean), ("c", mean)]


def test_within_a_loss_of_dense_the_goal_is_what_is_learned(searcher):
    """The higher the better, also where the metric is a loss."""
    searched = MadeStudy(within_dense=0.01, metric="val_loss").searched(searcher)
    good = [("one", {"val_loss": 0.5, GOAL: 0.8}), ("two", {"val_loss": 0.4, GOAL: -0.2})]
    over(searched, *good, ("three", {"val_loss": 0.5}))
    assert searcher.learned == [*good, ("three", {GOAL: -0.2})]


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
    """It says why it cannot, and the searcher learns that it is bad."""
    study = MadeStudy(num_samples=1)
    (config,) = drained(study.searched(MadeSearcher({LR: -1.0})))
    assert config["trial"] == "0" and json.dumps(config)
    assert study.proposals[0].make_trial(study.study).mistake
