"""A study's progress is what its ledger said, change by change, over restarts of the ledger."""

import pytest

from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import Changes, ProgressLog, StageProgress

DONE, WANTED = StageProgress("done", 3), StageProgress("wanted")
GONE = TrialStatus(name="2", status="stopped", reason="worse than others")


@pytest.fixture
def log():
    return ProgressLog({"found": DONE})


def changes(epochs=0, ledger="first", executed_for=(), **stages):
    return Changes(ledger, 0, stages, dict(executed_for), epochs)


def test_it_starts_from_what_was_found_and_stopped():
    progress = ProgressLog({"found": DONE}, {"2": GONE}).progress
    assert progress.stages == {"found": DONE} and progress.given_up == {"2": GONE}
    assert progress.executed_epochs == 0
    assert progress.changed is None and list(progress.news) == ["found"]


def test_changes_add_up_and_the_last_ones_are_named(log):
    log.take(changes(1, a=StageProgress("running", 1)))
    second = log.take(changes(5, a=DONE, b=StageProgress("running", 1), executed_for={"a": "0"}))
    assert second.stages == {"found": DONE, "a": DONE, "b": StageProgress("running", 1)}
    assert set(second.changed) == set(second.news) == {"a", "b"}
    assert second.executed_for == {"a": "0"} and second.executed_epochs == 5
    third = log.take(changes(5))
    assert set(third.changed) == set() and third.executed_for == {"a": "0"}
    assert third.stages == log.progress.stages


def test_it_knows_what_to_ask_for_next(log):
    assert log.last == (None, 0)
    log.take(Changes("first", 7, {}))
    assert log.last == ("first", 7)


def test_what_is_told_is_one_mapping_that_cannot_be_written(log):
    first = log.take(changes(a=WANTED))
    log.take(changes(a=DONE))
    assert first.stages["a"] == DONE
    with pytest.raises(TypeError):
        first.stages["a"] = WANTED


def test_a_ledger_that_begins_anew_loses_no_epoch_and_no_verdict(log):
    failed = StageProgress("failed", error="it diverged")
    running = StageProgress("running", 2, {"val_loss": 0.1})
    log.take(changes(7, a=DONE, b=failed, c=running, d=WANTED))
    progress = log.take(changes(1, "second", d=StageProgress("running", 1)))
    assert progress.executed_epochs == 8
    assert progress.stages["a"] == DONE and progress.stages["b"] == failed
    assert progress.stages["c"] == StageProgress("wanted", 2, {"val_loss": 0.1})
    assert set(progress.changed) == {"c", "d"}
    progress = log.take(changes(3, "second", a=WANTED))
    assert progress.executed_epochs == 10
    assert progress.stages["a"] == WANTED, "the new ledger knows better"
    assert log.take(changes(1, "third")).executed_epochs == 11


def test_a_trial_is_given_up_only_once_no_earlier_answer_can_say_otherwise(log):
    """The answer that is under way may not know yet that it finished."""
    log.give_up(GONE)
    assert log.progress.given_up == {"2": GONE}
    assert log.take(changes()).given_up == {}, "it may have been asked for before"
    assert log.take(changes()).given_up == {"2": GONE}
    assert log.take(changes()).given_up == {"2": GONE}
