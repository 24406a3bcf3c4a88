"""Around the ledger: who waits is woken, what was finished is found, and what is silent is noticed.

The class behind the actor, in this process: no Ray is started.
"""

import asyncio
import functools
import time
from typing import ClassVar

import pytest
from made_records import record

from rayprune.config import Experiment, Scaling
from rayprune.distributed import actor as module
from rayprune.distributed import gauges
from rayprune.distributed import ledger as decisions
from rayprune.distributed.actor import LedgerActor
from rayprune.distributed.ledger import Rejoin, Run, Stop, Wait
from rayprune.plan import make_plan
from rayprune.results.stages import save_stage
from rayprune.trials import TrialPlan

TAGS = (11, 22)
SCALING = Scaling()
POLL_S = 0.2
SOON_S = 5.0  # far above what it takes: for machines that are busy


def trial(name="a", cycles=1, seed=0, epochs=2):
    fields = {"prune": {"cycles": cycles}, "retrain": {"epochs": epochs}, "seed": seed}
    experiment = Experiment.model_validate(fields)
    return TrialPlan(name, {"seed": seed}, experiment, make_plan(experiment))


class MadeGauge:
    """Keeps what it is set to, by name."""

    values: ClassVar = {}

    def __init__(self, name, **description):
        self.name = name

    def set(self, value, tags):
        self.values[self.name, tags["study"]] = value


TRIAL = trial()
DENSE, CYCLE = TRIAL.plan


@pytest.fixture(autouse=True)
def removed(monkeypatch):
    """Tags of the placement groups that were removed; time goes faster than in a study."""
    tags = []
    monkeypatch.setattr(module, "remove_groups", tags.append)
    monkeypatch.setattr(module, "_dead_nodes", frozenset)
    monkeypatch.setattr(module, "TICK_S", 0.02)
    monkeypatch.setattr(module, "POLL_S", POLL_S)
    monkeypatch.setattr(module, "AGREE_S", 0.3)
    monkeypatch.setattr(gauges, "Gauge", MadeGauge)
    return tags


@pytest.fixture
def actor(tmp_path):
    return LedgerActor("study", str(tmp_path), SCALING)


def join(actor, slot, num_workers=1, nodes=()):
    return actor.join(slot, TAGS[slot % 2], num_workers, nodes)


def on_loop(law):
    """The law, run on an event loop of its own."""

    @functools.wraps(law)
    def test(**fixtures):
        asyncio.run(asyncio.wait_for(law(**fixtures), 60))

    return test


async def at_work(actor, *trials, num_workers=1):
    """The actor knows these trials and they wait; return a slot's incarnation and its stage."""
    await actor.learn(trials or [TRIAL])
    for each in trials or [TRIAL]:
        await actor.submit(each.name)
    incarnation = await join(actor, 0, num_workers, ["node"])
    return incarnation, (await actor.next_stage(incarnation, 0)).stage


async def waits(question):
    """A task that asks, and still waits after a moment."""
    task = asyncio.create_task(question)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


async def soon(task):
    return await asyncio.wait_for(task, SOON_S)


def patient(monkeypatch):
    """Questions are held open until there is news."""
    monkeypatch.setattr(module, "POLL_S", 60.0)


def state(actor, stage):
    return actor._ledger.state(stage.key)


# ---- the plans ----


@on_loop
async def test_a_trial_waits_for_the_plans_and_asks_again(actor, monkeypatch):
    started = time.monotonic()
    assert await actor.submit("a") is None
    assert time.monotonic() - started >= POLL_S
    patient(monkeypatch)
    waiting = await waits(actor.submit("a"))
    await actor.learn([TRIAL])
    assert await soon(waiting) == TRIAL
    assert await actor.submit("a") == TRIAL, "at once"


@on_loop
async def test_many_trials_are_submitted_at_once_when_all_are_known(actor, monkeypatch):
    """As the driver does, so that slots find what all of them share and the longest way."""
    patient(monkeypatch)
    other = trial("b", seed=1)
    waiting = await waits(actor.submit("a", "b"))
    await actor.learn([other])
    await asyncio.sleep(0.05)
    assert not waiting.done() and await actor.useful_slots() == (0, frozenset())
    await actor.learn([TRIAL])
    assert await soon(waiting) == other, "the last"
    assert await actor.useful_slots() == (2, frozenset())


@on_loop
async def test_trials_that_a_searcher_proposed_later_are_learned_beside_the_others(actor):
    other = trial("b", seed=1)
    await actor.learn([TRIAL])
    await actor.learn([other])
    assert [await actor.submit(name) for name in "ab"] == [TRIAL, other]


@on_loop
async def test_a_trial_that_submits_again_shares_no_more_than_before(actor):
    await actor.learn([TRIAL, trial("b", cycles=2)])
    await actor.submit("a", "b")
    for name in "aab":
        await actor.submit(name)
    assert actor._ledger.shared_epochs == DENSE.epochs


@on_loop
async def test_a_finished_stage_of_the_storage_is_found_with_its_history(actor, tmp_path):
    history = [{"val_loss": 0.3}, {"val_loss": 0.2}]
    save_stage(str(tmp_path), DENSE.key, b"weights", [record(key=DENSE.key)], history)
    _, stage = await at_work(actor)
    assert stage == CYCLE
    news = await actor.wait_for(DENSE.key, 0)
    assert news.progress.status == "done" and news.progress.metrics == record().measured
    assert news.history == tuple(history)
    assert (await actor.changes("", 0)).executed_epochs == 0


@on_loop
async def test_what_led_to_a_finished_trial_is_not_run_though_it_was_deleted(actor, tmp_path):
    history = [{"val_loss": 0.2}]
    records = [record(key=stage.key, metrics={"val_loss": n}) for n, stage in enumerate(TRIAL.plan)]
    save_stage(str(tmp_path), CYCLE.key, b"weights", records, history)
    await actor.learn([TRIAL])
    await actor.submit("a")
    assert await actor.useful_slots() == (0, frozenset())
    assert isinstance(await actor.next_stage(await join(actor, 0), 0), Wait)
    news = [await actor.wait_for(stage.key, 0) for stage in TRIAL.plan]
    assert [each.progress.status for each in news] == ["done", "done"]
    assert [each.progress.metrics["val_loss"] for each in news] == [0, 1]
    assert [each.history for each in news] == [(), tuple(history)]


@on_loop
async def test_what_led_to_a_finished_trial_keeps_its_history_where_it_is_there(actor, tmp_path):
    histories = [({"val_loss": 0.3},), ({"val_loss": 0.2},)]
    records = [record(key=stage.key) for stage in TRIAL.plan]
    for number, stage in enumerate(TRIAL.plan):
        led_to_it = records[: number + 1]
        save_stage(str(tmp_path), stage.key, b"weights", led_to_it, histories[number])
    await actor.learn([TRIAL])
    await actor.submit("a")
    news = [await actor.wait_for(stage.key, 0) for stage in TRIAL.plan]
    assert [each.history for each in news] == histories


@on_loop
async def test_what_is_missing_for_another_trial_after_all_is_run_again(actor, tmp_path):
    """The dense run was deleted; one trial is done without it, the other needs it."""
    records = [record(key=stage.key) for stage in TRIAL.plan]
    save_stage(str(tmp_path), CYCLE.key, b"weights", records)
    other = trial("b", epochs=1)
    incarnation, stage = await at_work(actor, TRIAL, other)
    assert stage == other.plan[1]
    await actor.lost(incarnation, stage.key, DENSE.key)
    assert (await actor.next_stage(incarnation, 1)).stage == DENSE


@on_loop
async def test_a_ledger_that_was_started_again_hears_everything_anew(actor, tmp_path):
    incarnation, stage = await at_work(actor)
    save_stage(str(tmp_path), stage.key, b"weights", [record(key=stage.key)])
    await actor.finished(incarnation, stage.key, None, {})
    again = LedgerActor("study", str(tmp_path), SCALING)
    assert await again.wait_for(CYCLE.key, 0) is None, "the trial submits again"
    await again.learn([TRIAL])
    assert await again.submit("a") == TRIAL
    assert isinstance(await again.next_stage(incarnation, 1), Rejoin)
    incarnation = await join(again, 0)
    assert (await again.next_stage(incarnation, 0)).stage == CYCLE, "the dense run was found"


# ---- who is woken ----


@on_loop
async def test_who_waits_is_woken_by_news_alone(actor, monkeypatch):
    patient(monkeypatch)
    incarnation, stage = await at_work(actor, TRIAL, trial("b"))
    waiting = await waits(actor.wait_for(stage.key, 0))
    await actor.withdraw("b")
    await actor.beat(incarnation)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await actor.epoch_done(incarnation, stage.key, [{"val_loss": 0.5}], 1.0)
    news = await soon(waiting)
    assert (news.progress.status, news.progress.epochs_done) == ("running", 1)
    assert news.history == ({"val_loss": 0.5},)
    waiting = await waits(actor.wait_for(stage.key, 1))
    await actor.failed(incarnation, stage.key, "it diverged")
    assert (await soon(waiting)).progress.error == "it diverged"


@on_loop
async def test_without_news_a_trial_is_answered_after_a_while(actor):
    _, stage = await at_work(actor)
    news = await soon(asyncio.create_task(actor.wait_for(stage.key, 0)))
    assert news.progress.status == "running" and news.history == ()


@on_loop
async def test_who_waits_for_another_stage_is_not_looked_at(actor, monkeypatch):
    patient(monkeypatch)
    other = trial("b", seed=1)
    incarnation, stage = await at_work(actor, TRIAL, other)
    asked = []
    told = actor._ledger.state
    monkeypatch.setattr(actor._ledger, "state", lambda key: asked.append(key) or told(key))
    tasks = [await waits(actor.wait_for(key, 0)) for key in (stage.key, other.plan[1].key)]
    asked.clear()
    await actor.epoch_done(incarnation, stage.key, [{}], 1.0)
    await soon(tasks[0])
    assert set(asked) == {stage.key}
    tasks[1].cancel()


@on_loop
async def test_a_slot_that_waits_is_woken_by_a_stage_that_is_ready_and_by_the_end(
    actor, monkeypatch
):
    patient(monkeypatch)
    incarnation, stage = await at_work(actor)
    other = await join(actor, 1)
    waiting = await waits(actor.next_stage(other, 0))
    await actor.finished(incarnation, stage.key, None, {})
    answer = await soon(waiting)
    assert isinstance(answer, Run) and answer.stage == CYCLE
    waiting = await waits(actor.next_stage(incarnation, 1))
    await actor.finished(other, CYCLE.key, None, {})
    await asyncio.sleep(0.05)
    assert not waiting.done(), "plans may still come"
    await actor.close()
    assert isinstance(await soon(waiting), Stop)
    assert not await actor.has_work()


@on_loop
async def test_all_slots_that_wait_come_to_work_and_hear_the_end(actor, monkeypatch):
    """One is woken for each stage that is ready, and each wakes the next."""
    patient(monkeypatch)
    trials = [trial(f"{seed}", seed=seed) for seed in range(20)]
    await actor.learn(trials)
    lives = [await join(actor, slot) for slot in range(30)]
    waiting = [await waits(actor.next_stage(life, 0)) for life in lives]
    for each in trials:
        await actor.submit(each.name)
    done, pending = await asyncio.wait(waiting, timeout=0.3)
    assert {task.result().stage.key for task in done} == {each.plan[0].key for each in trials}
    await actor.close()
    done, _ = await asyncio.wait(pending, timeout=SOON_S)
    assert [type(task.result()) for task in done] == [Stop] * 10


@on_loop
async def test_a_slot_without_work_asks_again_after_a_while(actor):
    await actor.learn([])
    assert isinstance(await soon(actor.next_stage(await join(actor, 0), 0)), Wait)


@on_loop
async def test_who_no_longer_waits_is_forgotten(actor):
    _, stage = await at_work(actor)
    await asyncio.gather(*(actor.wait_for(stage.key, 0) for _ in range(10)))
    assert not any(actor._waiting.values())


@on_loop
async def test_the_first_slot_at_work_lets_the_others_start(actor):
    incarnation, stage = await at_work(actor)
    waiting = await waits(actor.first_epoch_done())
    await actor.epoch_done(incarnation, stage.key, [{}], 1.0)
    await soon(waiting)


@pytest.mark.parametrize("end", ["failed", "abandon"])
def test_the_other_slots_start_where_the_first_has_nothing_to_wait_for(actor, end):
    async def law():
        incarnation, stage = await at_work(actor)
        words = {"failed": (incarnation, stage.key, "oh"), "abandon": ("oh",)}
        await getattr(actor, end)(*words[end])
        await soon(actor.first_epoch_done())

    asyncio.run(law())


@on_loop
async def test_a_thousand_waiters_hear_of_every_epoch(actor, monkeypatch):
    """And a word that is not of their stage wakes none of them."""
    patient(monkeypatch)
    num_waiting, num_epochs = 1_000, 10
    trials = [TRIAL, *(trial(f"{seed}", seed=seed) for seed in range(1, 30))]
    looks = 0
    told = actor._ledger.state

    def counted(key):
        nonlocal looks
        looks += 1
        return told(key)

    monkeypatch.setattr(actor._ledger, "state", counted)

    async def listen(stage):
        heard = 0
        while heard < num_epochs:
            heard += len((await actor.wait_for(stage.key, heard)).history)
        return heard

    await actor.learn(trials)
    await actor.submit("a")
    incarnation = await join(actor, 0)
    stage = (await actor.next_stage(incarnation, 0)).stage
    listening = [asyncio.create_task(listen(stage)) for _ in range(num_waiting)]
    await asyncio.sleep(0)
    for each in trials[1:]:
        await actor.submit(each.name)
    for epoch in range(num_epochs):
        await actor.epoch_done(incarnation, stage.key, [{}] * (epoch + 1), 1.0)
        await asyncio.sleep(0.01)
    assert await soon(asyncio.gather(*listening)) == [num_epochs] * num_waiting
    # For each epoch: before it waits, when it is woken, and the answer.
    assert looks <= 3 * num_waiting * num_epochs


# ---- which slots are useful ----


@on_loop
async def test_the_pool_hears_how_many_slots_are_useful_and_which_live(actor):
    incarnation, stage = await at_work(actor, TRIAL, trial("b", epochs=1), trial("c", seed=1))
    await join(actor, 7)
    assert await actor.useful_slots() == (2, {0, 7})
    await actor.finished(incarnation, stage.key, None, {})
    assert await actor.useful_slots() == (3, {0, 7})
    assert await actor.slot_lost(7, "killed") == 1
    await actor.withdraw("c")
    assert await actor.useful_slots() == (2, {0})


@on_loop
async def test_a_slot_that_is_idle_for_longer_than_the_study_says_ends(tmp_path):
    actor = LedgerActor("study", str(tmp_path), Scaling(idle_timeout_s=2 * POLL_S))
    await at_work(actor)
    idle, answers = await join(actor, 1), []
    while not answers or isinstance(answers[-1], Wait):
        answers.append(await soon(actor.next_stage(idle, 0)))
    assert isinstance(answers[-1], Stop) and len(answers) > 1
    assert await actor.useful_slots() == (1, {0}) and await actor.has_work()


@on_loop
async def test_the_budget_of_failures_is_the_studys(tmp_path):
    actor = LedgerActor("study", str(tmp_path), Scaling(max_failures=0))
    _, stage = await at_work(actor)
    await actor.slot_lost(0, "killed")
    assert state(actor, stage).status == "failed"


@on_loop
async def test_gauges_follow_the_study(actor):
    MadeGauge.values.clear()
    incarnation, stage = await at_work(actor, TRIAL, trial("b", seed=1))
    await actor.epoch_done(incarnation, stage.key, [{}], 1.0)
    while MadeGauge.values.get(("rayprune_epochs_done", "study")) != 1.0:
        await asyncio.sleep(0.02)
    assert MadeGauge.values["rayprune_stages_running", "study"] == 1.0


# ---- what is silent ----


@on_loop
async def test_a_silent_slot_loses_its_resources_and_its_stage(actor, removed, monkeypatch):
    monkeypatch.setattr(decisions, "LEASE_S", 0.3)
    incarnation, stage = await at_work(actor)
    other = await join(actor, 1)
    for _ in range(10):
        assert await actor.beat(incarnation) and await actor.beat(other)
        await asyncio.sleep(0.05)
    assert removed == []
    patient(monkeypatch)
    waiting = await waits(actor.next_stage(other, 0))
    while not removed:
        assert await actor.beat(other)
        await asyncio.sleep(0.05)
    assert removed == [TAGS[0]], "the tag with which it joined"
    assert (await soon(waiting)).stage == stage
    assert not await actor.beat(incarnation)
    assert "silent" in (await actor.changes("", 0)).notes[0]


@on_loop
async def test_what_died_on_a_lost_node_is_free(actor, monkeypatch):
    monkeypatch.setattr(module, "_dead_nodes", lambda: frozenset(["node"]))
    _, stage = await at_work(actor)
    await asyncio.sleep(0.1)
    for _ in range(10):
        assert await actor.slot_lost(0, "its node is gone")
        await actor.next_stage(await join(actor, 0, nodes=["node"]), 0)
    assert state(actor, stage).status == "running"


@on_loop
async def test_what_another_study_runs_is_found_when_it_is_finished(actor, tmp_path, monkeypatch):
    patient(monkeypatch)
    incarnation, stage = await at_work(actor)
    await actor.elsewhere(incarnation, stage.key)
    waiting = await waits(actor.next_stage(incarnation, 1))
    save_stage(str(tmp_path), stage.key, b"weights", [record(key=stage.key)], [{"val_loss": 0.3}])
    assert (await soon(waiting)).stage == CYCLE
    assert (await actor.wait_for(stage.key, 0)).history == ({"val_loss": 0.3},)


@on_loop
async def test_what_another_study_gave_up_is_run_here(actor, monkeypatch):
    patient(monkeypatch)
    monkeypatch.setattr(decisions, "ELSEWHERE_S", 0.2)
    incarnation, stage = await at_work(actor)
    await actor.elsewhere(incarnation, stage.key)
    waiting = await waits(actor.next_stage(incarnation, 1))
    assert (await soon(waiting)).stage == stage


# ---- mistakes ----


@on_loop
async def test_a_mistake_of_all_ranks_is_a_verdict_and_each_hears_it(actor, monkeypatch):
    monkeypatch.setattr(module, "AGREE_S", 60.0)
    incarnation, stage = await at_work(actor, num_workers=3)
    ranks = [await waits(actor.mistake(incarnation, stage.key, rank, "oh")) for rank in (2, 0)]
    ranks.append(asyncio.create_task(actor.mistake(incarnation, stage.key, 1, "oh")))
    assert await soon(asyncio.gather(*ranks)) == [True] * 3
    assert state(actor, CYCLE).error == "oh"


@on_loop
async def test_a_mistake_of_one_rank_alone_is_an_accident(actor):
    incarnation, stage = await at_work(actor, num_workers=2)
    assert await soon(actor.mistake(incarnation, stage.key, 1, "oh")) is False
    assert state(actor, stage).status == "running"


@on_loop
async def test_a_mistake_of_a_life_that_is_over_is_none(actor):
    incarnation, stage = await at_work(actor)
    await actor.slot_lost(0, "killed")
    assert await soon(actor.mistake(incarnation, stage.key, 0, "oh")) is False
    assert state(actor, stage).status == "wanted"


# ---- the end, and what people see ----


@on_loop
async def test_when_no_slot_can_start_who_waits_hears_that_it_fails(actor, monkeypatch):
    patient(monkeypatch)
    await at_work(actor)
    idle = await join(actor, 1)
    waiting = await waits(actor.wait_for(CYCLE.key, 0)), await waits(actor.next_stage(idle, 0))
    await actor.abandon("no package")
    assert (await soon(waiting[0])).progress.error == "no package"
    assert isinstance(await soon(waiting[1]), Stop)
    assert state(actor, DENSE).status == "failed" and not await actor.has_work()


@on_loop
async def test_after_the_close_a_busy_slot_ends_at_its_next_epoch(actor):
    incarnation, stage = await at_work(actor)
    await actor.close()
    assert not await actor.epoch_done(incarnation, stage.key, [{}], 1.0)
    assert isinstance(await soon(actor.next_stage(incarnation, 1)), Stop)


@on_loop
async def test_changes_are_those_since_a_version_of_this_ledger(actor):
    incarnation, stage = await at_work(actor)
    first = await actor.changes("", 0)
    assert first.stages.keys() == {DENSE.key, CYCLE.key}
    await actor.epoch_done(incarnation, stage.key, [{}], 1.0)
    second = await actor.changes(first.ledger, first.version)
    assert second.stages.keys() == {stage.key} and second.executed_epochs == 1
    assert (await actor.changes("another", first.version)).stages.keys() == first.stages.keys()
