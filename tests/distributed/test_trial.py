"""A trial reports every epoch of its plan once and in order, whenever it hears of it."""

from dataclasses import replace

import pytest
import ray
from asked import Asked
from made_trials import METRIC, TRIAL, goals_with
from ray import tune

from rayprune.distributed.actor import News
from rayprune.distributed.ledger import Ledger, Run
from rayprune.distributed.trial import (
    CYCLES_DONE,
    FAILED,
    GOAL,
    IS_FINAL,
    ITERATION,
    RETRAIN_EPOCHS,
    run_trial,
)
from rayprune.results.goal import goal_of
from rayprune.trials import TrialPlan


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
        ((stage, epoch) for stage in TRIAL.plan for epoch in range(1, stage.epochs + 1)), 1
    )
]
"""(epochs of the plan, the metric), as they are to be reported."""


class Study:
    """A real ledger; its slot runs some more epochs each time that the trial asks for news."""

    def __init__(self, *steps):
        self.steps = list(steps) or [1] * 100
        self.found, self.results = {}, {}
        self.start()

    def start(self):
        """A ledger that knows nothing, and after it a slot."""
        self.ledger, self.is_busy = Ledger(), False
        self.life, self.number = self.ledger.join(0), 0

    def submit(self, name):
        self.ledger.submit(name, TRIAL.experiment, TRIAL.plan)
        for key, metrics in self.found.items():
            self.ledger.found(key, metrics, self.results.get(key, metrics[-1] if metrics else {}))
        return TRIAL

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


def run(study, **search):
    run_trial({"trial": "a"}, ledger=Asked(study), goals=goals_with(**search), replays={})


def heard(reported):
    return [(result[ITERATION], result[METRIC]) for result in reported]


@pytest.mark.parametrize(
    "steps", [[1] * 100, [0, 2] * 50, [3] * 10, [5] * 10, [100]], ids=lambda steps: str(steps[:2])
)
def test_every_epoch_is_reported_once_and_in_order_however_late_it_listens(reported, steps):
    run(Study(*steps))
    assert heard(reported) == EPOCHS


def test_each_report_says_where_in_the_plan_it_is(reported):
    """Two dense epochs, then two cycles of three."""
    run(Study())
    fields = (ITERATION, "phase", "cycle", RETRAIN_EPOCHS, CYCLES_DONE, IS_FINAL)
    assert [tuple(result[name] for name in fields) for result in reported] == [
        (1, "dense", 0, 0, 0, False),
        (2, "dense", 0, 0, 0, False),
        (3, "retrain", 1, 1, 0, False),
        (4, "retrain", 1, 2, 0, False),
        (5, "retrain", 1, 3, 1, False),
        (6, "retrain", 2, 4, 1, False),
        (7, "retrain", 2, 5, 1, False),
        (8, "retrain", 2, 6, 2, True),
    ]


def test_the_last_epoch_of_a_stage_has_all_that_is_known_of_its_result(reported):
    run(Study())
    ends = [result for result in reported if "test_accuracy" in result]
    assert [result["total_epochs"] for result in ends] == [2, 5, 8]
    assert [result[ITERATION] for result in ends] == [2, 5, 8]
    assert ends[-1].items() >= final(TRIAL.plan[-1]).items()
    assert all("total_epochs" not in result for result in reported if result not in ends)


def test_a_stage_without_an_epoch_is_a_step_all_the_same(reported):
    """Tune counts results, and each is to have a number of its own."""
    dense, cycle, last = TRIAL.plan
    short = TrialPlan("a", {}, TRIAL.experiment, (dense, replace(cycle, epochs=0), last))
    study = Study()
    study.submit = lambda name: study.ledger.submit(name, short.experiment, short.plan) or short
    run(study)
    assert [result[ITERATION] for result in reported] == [1, 2, 3, 4, 5, 6]
    assert [result[RETRAIN_EPOCHS] for result in reported] == [0, 0, 0, 1, 2, 3]
    assert [result.get("total_epochs") for result in reported] == [None, 2, 2, None, None, 5]


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
    assert heard(reported) == EPOCHS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_stages_that_were_found_are_reported_again(reported, count):
    """So early stopping compares with what an earlier start has run."""
    study = Study()
    study.found = {stage.key: history_of(stage, stage.epochs) for stage in TRIAL.plan[:count]}
    run(study)
    assert heard(reported) == EPOCHS


def test_a_stage_whose_history_is_not_known_counts_all_the_same(reported):
    study = Study()
    study.found = {stage.key: [] for stage in TRIAL.plan[:2]}
    study.results = {stage.key: final(stage) for stage in TRIAL.plan[:2]}
    run(study)
    assert heard(reported) == [EPOCHS[1], EPOCHS[4], *EPOCHS[5:]], "each stage's end at least"


def test_a_failed_stage_ends_the_trial_and_says_why(reported):
    study = Study()
    study.submit("b")
    study.ledger.abandon("no package")
    run(study)
    assert reported == [{FAILED: "no package"}]


def test_a_point_that_cannot_be_run_says_why_and_wants_nothing(reported):
    wrong = TrialPlan("a", {}, TRIAL.experiment, (), "retrain.epochs is too long")
    study = Study()
    study.submit = lambda name: wrong
    run(study)
    assert reported == [{FAILED: "retrain.epochs is too long"}]


def test_a_trial_that_fails_later_has_reported_what_was_run(reported):
    study = Study(*[1] * 6, 0)
    wait_for = study.wait_for

    def failing(key, heard):
        if not study.steps:
            study.ledger.failed(study.life, study.stage.key, "it diverged")
        return wait_for(key, heard)

    study.wait_for = failing
    run(study)
    *before, last = reported
    assert heard(before) == EPOCHS[: len(before)] and before
    assert last == {FAILED: "it diverged"}


def test_what_was_stopped_before_is_reported_as_it_was_and_wants_nothing(reported):
    told = [{RETRAIN_EPOCHS: 1, METRIC: 0.5}, {RETRAIN_EPOCHS: 2, METRIC: 0.4}]
    study = Study()
    asked = Asked(study)
    run_trial({"trial": "a"}, ledger=asked, goals=goals_with(), replays={"a": told, "b": []})
    assert reported == [{**result, IS_FINAL: False} for result in told] and asked.words == []
    assert all(IS_FINAL not in result for result in told), "what is handed on is not changed"


# ---- how far a trial answers "how sparse within a loss of dense?" ----


def goals(reported):
    return [result.get(GOAL) for result in reported]


def test_the_goal_of_a_search_for_the_sparsest_counts_from_the_dense_run(reported):
    """The dense run ends at .2, and the cycles are far better."""
    run(Study(), within_dense=0.01)
    sparsities = [TRIAL.plan[1].sparsity] * 3 + [TRIAL.plan[2].sparsity] * 3
    assert goals(reported) == [None, None, *sparsities]


@pytest.mark.parametrize("metric", [METRIC, "val_loss"])
@pytest.mark.parametrize("worse", [0.0, 0.005, 0.3])
def test_the_goal_is_below_zero_where_too_much_is_lost(reported, metric, worse):
    study = Study()
    sign = -1 if metric == METRIC else 1
    for stage in TRIAL.plan:
        lost = 0.0 if stage.is_dense else sign * worse
        study.found[stage.key] = [{metric: 0.5 + lost}] * stage.epochs
        study.results[stage.key] = {metric: 0.5 + lost, "sparsity": 0.7}
    run(study, metric=metric, within_dense=0.01)
    ends = [result for result in reported if "total_epochs" in result]
    expected = goal_of(0.7, -worse, 0.01)
    assert goals(ends) == [None, *[pytest.approx(expected)] * 2], "the sparsity that was measured"
    assert (expected < 0) == (worse > 0.01)


def test_without_the_question_there_is_no_goal(reported):
    run(Study())
    assert goals(reported) == [None] * len(EPOCHS)


def test_without_the_metric_of_the_dense_run_there_is_no_goal(reported):
    study = Study()
    study.found = {TRIAL.plan[0].key: [{}] * TRIAL.plan[0].epochs}
    run(study, within_dense=0.01)
    assert goals(reported) == [None] * len(EPOCHS)
