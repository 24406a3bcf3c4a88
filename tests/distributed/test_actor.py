"""Around the ledger: who waits is woken, what was finished is found, and slots that end are heard.

The class behind the actor, in this process: no Ray is started.
"""

import asyncio

import pytest
from made_records import record

from rayprune.config import Experiment
from rayprune.distributed.actor import LedgerActor
from rayprune.distributed.ledger import Run, Stop, Wait
from rayprune.plan import make_plan
from rayprune.results.stages import save_stage

EXPERIMENT = Experiment()
PLAN = make_plan(EXPERIMENT)


@pytest.fixture
def actor(tmp_path):
    return LedgerActor.__ray_metadata__.modified_class(str(tmp_path), 2)


def test_a_finished_stage_of_the_storage_is_found(actor, tmp_path):
    save_stage(str(tmp_path), PLAN[0].key, b"weights", [record(key=PLAN[0].key)])

    async def study():
        await actor.submit("a", EXPERIMENT, PLAN)
        return await actor.next_stage(0, await actor.join(0), 0), await actor.progress()

    answer, progress = asyncio.run(study())
    assert isinstance(answer, Run) and answer.stage == PLAN[1]
    assert progress.stages[PLAN[0].key].status == "done"
    assert progress.executed_epochs == 0 and progress.num_parallel == 2


def test_who_waits_is_woken_by_news_alone(actor):
    async def study():
        await actor.submit("a", EXPERIMENT, PLAN)
        key, incarnation = PLAN[0].key, await actor.join(0)
        await actor.next_stage(0, incarnation, 0)
        waiting = asyncio.create_task(actor.wait_for(key, 0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await actor.epoch_done(0, key, 1, {"val_loss": 0.5}, 1.0)
        return await asyncio.wait_for(waiting, 1)

    state = asyncio.run(study())
    assert (state.status, state.epochs_done, state.metrics) == ("running", 1, {"val_loss": 0.5})


@pytest.mark.parametrize("is_last", [False, True])
def test_when_the_last_slot_ends_with_an_error_what_is_left_fails_with_it(actor, is_last):
    async def study():
        await actor.submit("a", EXPERIMENT, PLAN)
        await actor.next_stage(0, await actor.join(0), 0)
        await actor.slot_ended(0, "slot 0 ended: no such node", is_last)
        return await actor.progress()

    states = {state.status for state in asyncio.run(study()).stages.values()}
    assert states == ({"failed"} if is_last else {"wanted"})


def test_a_slot_that_ends_in_peace_fails_nothing(actor):
    async def study():
        await actor.submit("a", EXPERIMENT, PLAN)
        await actor.slot_ended(0, None, True)
        return await actor.progress()

    assert {state.status for state in asyncio.run(study()).stages.values()} == {"wanted"}


def test_a_closed_study_without_work_sends_its_slots_away(actor):
    async def study():
        await actor.submit("a", EXPERIMENT, PLAN)
        await actor.withdraw("a", "stopped", "worse than others")
        incarnation = await actor.join(0)
        early = actor._ledger.next_stage(0, incarnation, 0)
        await actor.close()
        return early, await actor.next_stage(0, incarnation, 0), await actor.has_work()

    early, late, has_work = asyncio.run(study())
    assert isinstance(early, Wait) and isinstance(late, Stop) and not has_work
