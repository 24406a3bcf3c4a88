"""Methods that sparsify the dense run, through whole plans: goals, keys, bits and epochs."""

import pytest
import torch
from made_plans import WORKER, assert_equal, convolutional, run, run_until_killed

from rayprune.plan import EpochCount, count_epochs, make_plan
from rayprune.pruning.masks import num_pruned, num_weights, sparsity
from rayprune.sparsifiers import METHODS
from rayprune.training.network import make_model
from rayprune.training.run import dataset_of

FIND_THEIR_OWN = ("str", "cs", "dst")
OPTIONS = {  # so that each of them has something to do within the 81 steps of a test
    "dpf": {"interval": 0.12},
    "rigl": {"interval": 0.12},
    "dst": {"penalty": 1e-3},
    "cs": {"beta_final": 2000},
    "cs, in rounds": {"beta_final": 2000, "rounds": 2, "rewind": 0.45},  # steps 18 and 40
    "granet": {"interval": 0.12},
    "gmp, no recovery": {"recover": False},
}
CASES = (*METHODS, "cs, in rounds", "gmp, no recovery")

NUM_PRUNABLE = 9 * 16 + 9 * 16 * 32 + 49 * 32 * 10

every_case = pytest.mark.parametrize("case", CASES)


def sparsifying(small, case, *, goal=0.5, **fields):
    """The dense run sparsified to `goal`, and nothing after it unless `fields` say so."""
    method = case.partition(",")[0]
    options = {"method": method, **OPTIONS.get(case, {})}
    if method not in FIND_THEIR_OWN:
        options["sparsity"] = goal
    dense = {"epochs": 3, "sparsify": options}
    optim = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    fields = {"optim": optim, "batch_size": 20, "prune": {"cycles": 0}, "dense": dense, **fields}
    return convolutional(small, **fields)


@pytest.fixture(scope="module")
def sparsified(small, tmp_path_factory):
    """Case -> its experiment, the snapshot of a run that nothing disturbed, and its storage."""
    found = {}

    def run_once(case):
        if case not in found:
            wanted, storage = sparsifying(small, case), tmp_path_factory.mktemp("sparsified")
            found[case] = wanted, run(wanted, storage)[0], storage
        return found[case]

    return run_once


@every_case
def test_goal_and_reached_sparsity_are_recorded_apart(case, sparsified):
    wanted, snapshot, _ = sparsified(case)
    (record,) = snapshot.records
    assert record.sparsity == sparsity(snapshot.masks)
    if wanted.dense.sparsify.method in FIND_THEIR_OWN:
        assert record.goal_sparsity is None
        assert 0 < record.sparsity < 1
    else:
        assert record.goal_sparsity == 0.5
        assert record.sparsity == round(0.5 * NUM_PRUNABLE) / NUM_PRUNABLE
    assert record.schedule == "stepped" and record.d is None
    assert "pruned_val_accuracy" not in record.metrics


@pytest.mark.parametrize("case", [case for case in CASES if case != "gsm"])
def test_adamw_and_clipped_gradients_reach_the_goal_as_well(case, small, tmp_path):
    optim = {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0}
    wanted = sparsifying(small, case, optim=optim)
    wanted = wanted.model_copy(update={"dense": wanted.dense.model_copy(update={"epochs": 2})})
    (record,) = run(wanted, tmp_path)[0].records
    if case.partition(",")[0] not in FIND_THEIR_OWN:
        assert record.sparsity == round(0.5 * NUM_PRUNABLE) / NUM_PRUNABLE
    # The second of two rounds starts with half of the masks at the threshold: that takes longer.
    assert case == "cs, in rounds" or record.metrics["test_accuracy"] > 0.4


@every_case
def test_what_is_left_is_a_plain_network_that_has_learnt(case, sparsified):
    wanted, snapshot, _ = sparsified(case)
    dataset = dataset_of(wanted)
    model = make_model(wanted, dataset)
    model.load_state_dict(snapshot.weights)
    measured = snapshot.records[-1].metrics["test_accuracy"]
    assert accuracy(model, dataset.test) == measured > 0.5


def accuracy(model, split):
    batches = split.batches([torch.arange(len(split))], device=WORKER.device)
    ((images, labels),) = batches
    with torch.inference_mode():
        return int((model.eval()(images).argmax(1) == labels).sum()) / len(labels)


@every_case
@pytest.mark.parametrize("epochs", [1, 2])
def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(
    epochs, case, sparsified, tmp_path
):
    """Killed at an epoch border, where the intervals of most methods do not end."""
    wanted, undisturbed, _ = sparsified(case)
    run_until_killed(wanted, tmp_path, epochs=epochs)
    snapshot, executed = run(wanted, tmp_path)
    assert executed == [(0, epoch) for epoch in range(epochs + 1, 4)]
    assert_equal(snapshot, undisturbed)


@every_case
def test_one_cycle_after_it_prunes_on_from_its_masks(case, sparsified, small):
    alone, before, storage = sparsified(case)
    wanted = sparsifying(small, case, prune={"sparsity": 0.85, "cycles": 1})
    assert make_plan(wanted)[0].key == make_plan(alone)[0].key
    after, executed = run(wanted, storage)
    assert executed == [(1, 1), (1, 2)], "the sparsified run is taken from the storage"
    first, last = after.records
    assert first == before.records[0]
    assert last.goal_sparsity == 0.85
    assert num_pruned(after.masks) == round(0.85 * num_weights(after.masks))
    for name, mask in after.masks.items():
        assert not (mask & ~before.masks[name]).any(), "removed weights stay removed"
        assert (after.weights[name][~mask] == 0).all()
    assert last.d1 > 0 and last.d == min(1, max(last.d1, last.d2))
    assert "pruned_val_accuracy" in last.metrics
    assert last.metrics["test_accuracy"] > 0.5


def test_without_a_goal_of_its_own_a_method_reaches_the_plans(small, tmp_path):
    dense = {"epochs": 2, "sparsify": {"method": "gmp"}}
    wanted = sparsifying(small, "gmp", dense=dense, prune={"sparsity": 0.8, "cycles": 0})
    (record,) = run(wanted, tmp_path)[0].records
    assert record.goal_sparsity == 0.8
    assert record.sparsity == round(0.8 * NUM_PRUNABLE) / NUM_PRUNABLE


def test_a_goal_of_nothing_is_a_goal(small, tmp_path):
    (record,) = run(sparsifying(small, "gmp", goal=0.0), tmp_path)[0].records
    assert record.goal_sparsity == 0 and record.sparsity == 0


def test_ignored_weights_stay_dense_in_every_stage(small, tmp_path):
    prune = {"sparsity": 0.9, "cycles": 1, "ignore": ["7"]}
    snapshot, _ = run(sparsifying(small, "gmp", prune=prune), tmp_path)
    assert snapshot.masks["7.weight"].all()
    counted = {name: mask for name, mask in snapshot.masks.items() if name != "7.weight"}
    assert num_pruned(counted) == round(0.9 * num_weights(counted))
    assert [record.sparsity for record in snapshot.records] == [0.5, sparsity(counted)]


@pytest.mark.parametrize("method", ["gmp", "str", None])
def test_a_budget_counts_epochs_the_same_for_all(method, small, tmp_path):
    """Five epochs, three of them dense, whether or not the dense ones sparsify."""
    wanted = convolutional(
        small,
        dense={"sparsify": None if method is None else {"method": method}},
        budget={"epochs": 5, "dense_epochs": 3},
        prune={"sparsity": 0.9, "cycles": 2},
        retrain={},
    )
    plan = make_plan(wanted)
    assert [stage.epochs for stage in plan] == [3, 1, 1]
    assert count_epochs([plan]) == EpochCount(unique=5, naive=5)
    snapshot, executed = run(wanted, tmp_path)
    assert len(executed) == 5 == sum(record.epochs for record in snapshot.records)
    assert snapshot.records[0].schedule == "linear"
