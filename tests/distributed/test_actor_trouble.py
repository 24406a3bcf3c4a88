"""The ledger's clock goes on when a look at the cluster or at the storage fails."""

import asyncio

from made_records import record

from rayprune.config import Experiment, Scaling
from rayprune.distributed import actor as module
from rayprune.distributed.actor import LedgerActor
from rayprune.distributed.ledger import Run
from rayprune.plan import make_plan
from rayprune.results.stages import save_stage
from rayprune.results.storage import StorageError
from rayprune.trials import TrialPlan

EXPERIMENT = Experiment()
TRIAL = TrialPlan("a", {}, EXPERIMENT, make_plan(EXPERIMENT))


def test_a_stage_of_another_study_is_found_after_looks_that_failed(tmp_path, monkeypatch):
    failed = []

    def read(storage, keys):
        if len(failed) < 3:
            failed.append(keys)
            raise StorageError("503")
        return read_manifests(storage, keys)

    async def study():
        actor = LedgerActor("study", str(tmp_path), Scaling())
        await actor.learn([TRIAL])
        await actor.submit("a")
        incarnation = await actor.join(0, 11, 1, [])
        dense = await actor.next_stage(incarnation, 0)
        await actor.elsewhere(incarnation, dense.stage.key)
        save_stage(str(tmp_path), dense.stage.key, b"weights", [record(key=dense.stage.key)])
        monkeypatch.setattr(module, "read_manifests", read)
        return dense, await actor.next_stage(incarnation, 1)

    read_manifests = module.read_manifests
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "_dead_nodes", frozenset)
    dense, following = asyncio.run(study())
    assert isinstance(following, Run) and following.stage == TRIAL.plan[1]
    assert dense.stage == TRIAL.plan[0] and len(failed) == 3
