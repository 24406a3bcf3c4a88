"""Methods that sparsify the dense run, through whole plans: goals, keys, bits and epochs."""

import pytest
import torch
from torch import nn

from rayprune.config import Experiment
from rayprune.plan import count_epochs, make_plan
from rayprune.pruning.masks import num_pruned, num_weights, sparsity
from rayprune.results.files import epoch_file
from rayprune.results.storage import read_bytes
from rayprune.sparsifiers import NAMES
from rayprune.training.network import make_model
from rayprune.training.run import load_dataset, run_plan, run_stage
from rayprune.training.worker import Worker

WORKER = Worker()
FIND_THEIR_OWN = ("str", "cs", "dst")
OPTIONS = {  # so that each of them has something to do within the 81 steps of a test
    "dpf": {"interval": 10},
    "rigl": {"interval": 10},
    "dst": {"penalty": 1e-3},
}


NUM_PRUNABLE = 9 * 16 + 9 * 16 * 32 + 49 * 32 * 10


def small_net(num_classes, in_channels):
    """Convolutions, batch norm and a linear layer: 4-d weights, channels_last, buffers."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * 32, num_classes),
    )


def experiment(small, method, *, goal=0.5, **fields):
    """The dense run sparsified to `goal`, and nothing after it unless `fields` say so."""
    options = {"method": method, **OPTIONS.get(method, {})}
    if method not in FIND_THEIR_OWN:
        options["sparsity"] = goal
    dense = {"epochs": 3, "sparsify": options}
    model = {"target": f"{__name__}:small_net"}
    optim = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    fields = {"model": model, "optim": optim, "batch_size": 20, "prune": {"cycles": 0}, **fields}
    return Experiment.model_validate({**small, "dense": dense, **fields})


@pytest.fixture(scope="module")
def sparsified(small, tmp_path_factory):
    """Method -> its experiment, and the snapshot of a run that nothing disturbed."""
    found = {}

    def run(method):
        if method not in found:
            wanted = experiment(small, method)
            storage = str(tmp_path_factory.mktemp(method))
            found[method] = wanted, run_plan(wanted, WORKER, storage), storage
        return found[method]

    return run


@pytest.mark.parametrize("method", NAMES)
def test_goal_and_reached_sparsity_are_recorded_apart(method, sparsified):
    _, snapshot, _ = sparsified(method)
    (record,) = snapshot.records
    assert record.sparsity == sparsity(snapshot.masks)
    if method in FIND_THEIR_OWN:
        assert record.goal_sparsity is None
        assert 0 < record.sparsity < 1
    else:
        assert record.goal_sparsity == 0.5
        assert num_pruned(snapshot.masks) == round(0.5 * num_weights(snapshot.masks))
    assert record.schedule == "stepped" and record.d is None
    assert "pruned_val_accuracy" not in record.metrics


@pytest.mark.parametrize("method", NAMES)
def test_what_is_left_is_a_plain_network_with_exact_zeros(method, sparsified):
    wanted, snapshot, _ = sparsified(method)
    dataset = load_dataset(wanted.data, wanted.seed)
    model = make_model(wanted, dataset)
    assert list(snapshot.weights) == list(model.state_dict())
    for name, mask in snapshot.masks.items():
        removed = snapshot.weights[name][~mask]
        assert (removed == 0).all() and not torch.signbit(removed).any()
    model.load_state_dict(snapshot.weights)
    assert accuracy(model, dataset.test) == snapshot.records[-1].metrics["test_accuracy"]


def accuracy(model, split):
    batches = split.batches([torch.arange(len(split))], device=WORKER.device)
    ((images, labels),) = batches
    with torch.inference_mode():
        return int((model.eval()(images).argmax(1) == labels).sum()) / len(labels)


@pytest.mark.parametrize("method", NAMES)
def test_it_learns_better_than_by_chance(method, sparsified):
    _, snapshot, _ = sparsified(method)
    assert snapshot.records[-1].metrics["test_accuracy"] > 0.5


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", NAMES)
def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(method, sparsified, tmp_path):
    """Killed in its third epoch, it goes on from the checkpoint of the second."""
    wanted, undisturbed, _ = sparsified(method)
    (stage,) = make_plan(wanted)

    def die(report):
        if report.epochs_done == 2:
            raise KilledError

    def run(on_epoch):
        return run_stage(wanted, stage, None, WORKER, str(tmp_path), on_epoch=on_epoch)

    with pytest.raises(KilledError):
        run(lambda report: die(report) or True)
    assert read_bytes(epoch_file(str(tmp_path), stage.key)) is not None
    seen = []
    snapshot, _ = run(lambda report: seen.append(report.epochs_done) or True)
    assert seen == [3]
    assert all(torch.equal(snapshot.weights[k], v) for k, v in undisturbed.weights.items())
    assert all(torch.equal(snapshot.masks[k], v) for k, v in undisturbed.masks.items())
    assert snapshot.records[-1].metrics == undisturbed.records[-1].metrics


@pytest.mark.parametrize("method", NAMES)
def test_one_cycle_after_it_prunes_on_from_its_masks(method, sparsified, small):
    alone, before, storage = sparsified(method)
    wanted = experiment(small, method, prune={"sparsity": 0.85, "cycles": 1})
    assert make_plan(wanted)[0].key == make_plan(alone)[0].key
    epochs = []
    after = run_plan(
        wanted, WORKER, storage, on_epoch=lambda report: epochs.append(report.stage.index) or True
    )
    assert epochs == [1, 1], "the sparsified run is taken from the storage"
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


def test_gmp_reaches_its_own_goal_then_the_cycle_reaches_the_plans(small, tmp_path):
    wanted = experiment(small, "gmp", goal=0.5, prune={"sparsity": 0.9, "cycles": 1})
    first, last = run_plan(wanted, WORKER, str(tmp_path)).records
    assert (first.goal_sparsity, last.goal_sparsity) == (0.5, 0.9)
    assert first.sparsity == round(0.5 * NUM_PRUNABLE) / NUM_PRUNABLE
    assert last.sparsity == round(0.9 * NUM_PRUNABLE) / NUM_PRUNABLE


def test_without_a_goal_of_its_own_a_method_takes_the_plans(small, tmp_path):
    dense = {"epochs": 2, "sparsify": {"method": "gmp"}}
    wanted = experiment(small, "gmp", dense=dense, prune={"sparsity": 0.8, "cycles": 0})
    (record,) = run_plan(wanted, WORKER, str(tmp_path)).records
    assert (
        record.goal_sparsity == 0.8 and record.sparsity == round(0.8 * NUM_PRUNABLE) / NUM_PRUNABLE
    )


def test_a_goal_of_nothing_is_a_goal(small, tmp_path):
    wanted = experiment(small, "gmp", goal=0.0)
    (record,) = run_plan(wanted, WORKER, str(tmp_path)).records
    assert record.goal_sparsity == 0 and record.sparsity == 0


def test_ignored_weights_stay_dense_in_every_stage(small, tmp_path):
    prune = {"sparsity": 0.9, "cycles": 1, "ignore": ["7"]}
    wanted = experiment(small, "gmp", prune=prune)
    snapshot = run_plan(wanted, WORKER, str(tmp_path))
    assert snapshot.masks["7.weight"].all()
    counted = {name: mask for name, mask in snapshot.masks.items() if name != "7.weight"}
    assert num_pruned(counted) == round(0.9 * num_weights(counted))
    assert snapshot.records[-1].sparsity == sparsity(counted)


@pytest.mark.parametrize("method", ["gmp", "str", None])
def test_a_budget_counts_epochs_the_same_for_all(method, small, tmp_path):
    """Five epochs, three of them dense, whether or not the dense ones sparsify."""
    sparsify = None if method is None else {"method": method}
    fields = {**small, "dense": {"sparsify": sparsify}, "budget": {"epochs": 5, "dense_epochs": 3}}
    fields["prune"] = {"sparsity": 0.9, "cycles": 2}
    del fields["retrain"]
    wanted = Experiment.model_validate(fields)
    plan = make_plan(wanted)
    assert [stage.epochs for stage in plan] == [3, 1, 1]
    assert count_epochs([plan]) == {"unique_epochs": 5, "naive_epochs": 5}
    seen = []
    snapshot = run_plan(
        wanted, WORKER, str(tmp_path), on_epoch=lambda report: seen.append(report) or True
    )
    assert len(seen) == 5 == sum(record.epochs for record in snapshot.records)
    assert snapshot.records[0].schedule == "linear"
