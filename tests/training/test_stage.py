"""A stage keeps its masks, ends where an undisturbed one ends, and can be told to stop."""

import pytest
import torch

from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.results.files import epoch_file, snapshot_file
from rayprune.results.stages import finished_records
from rayprune.results.storage import read_bytes
from rayprune.snapshot.encoding import encode
from rayprune.training.run import load_dataset, run_plan, run_stage
from rayprune.training.stage import TrainingDivergedError
from rayprune.training.worker import Worker

WORKER = Worker()


def experiment(small, **fields):
    return Experiment.model_validate({**small, **fields})


def same(a, b):
    return all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights) and all(
        torch.equal(a.masks[k], b.masks[k]) for k in a.masks
    )


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A plan of two cycles, run undisturbed: experiment, storage, last snapshot."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    wanted = experiment(small, prune={"sparsity": 0.9, "cycles": 2})
    return wanted, storage, run_plan(wanted, WORKER, storage)


def test_pruned_weights_are_exactly_zero_and_exactly_as_many_as_asked(finished):
    _, _, snapshot = finished
    total = sum(mask.numel() for mask in snapshot.masks.values())
    assert sum(int((~m).sum()) for m in snapshot.masks.values()) == round(0.9 * total)
    for name, mask in snapshot.masks.items():
        pruned = snapshot.weights[name][~mask]
        assert (pruned == 0).all() and not torch.signbit(pruned).any()
    assert snapshot.records[-1].sparsity == pytest.approx(0.9, abs=1e-5)


def test_records_say_what_each_stage_did(finished):
    wanted, storage, snapshot = finished
    dense, first, last = snapshot.records
    assert [r.stage for r in snapshot.records] == [0, 1, 2]
    assert [r.key for r in snapshot.records] == [s.key for s in make_plan(wanted)]
    assert dense.sparsity == 0 and dense.compression == 1 and dense.d is None
    assert "pruned_val_accuracy" in last.metrics and "pruned_val_accuracy" not in dense.metrics
    assert first.d2 == pytest.approx(2 / 3) and first.d == min(1, max(first.d1, first.d2))
    assert first.lr_peak == pytest.approx(first.d * 0.05)
    assert dense.metrics["test_accuracy"] > 0.5, "real images are learnt"
    assert last.theoretical_speedup == pytest.approx(last.flops / last.flops_nonzero)
    assert finished_records(storage, last.key) == snapshot.records


def test_equal_experiments_give_equal_bytes(finished, small, tmp_path):
    wanted, _, snapshot = finished
    again = run_plan(wanted, WORKER, str(tmp_path))
    assert same(again, snapshot)


def test_what_is_kept_is_not_run_again(finished):
    wanted, storage, snapshot = finished
    epochs = []
    again = run_plan(wanted, WORKER, storage, on_epoch=lambda r: epochs.append(r) or True)
    assert epochs == [] and encode(again) == encode(snapshot)


@pytest.mark.parametrize("index", [0, 1])
def test_an_interrupted_stage_ends_with_the_bits_of_an_undisturbed_one(
    index, finished, small, tmp_path
):
    """Killed in its second epoch, it goes on from the checkpoint of the first."""
    wanted, storage, _ = finished
    plan = make_plan(wanted)
    before = None
    if index:
        before = run_plan(experiment(small, prune={"cycles": 0}), WORKER, storage)

    class KilledError(Exception):
        pass

    def die(report):
        raise KilledError

    with pytest.raises(KilledError):
        run_stage(wanted, plan[index], before, WORKER, str(tmp_path), on_epoch=die)
    assert read_bytes(epoch_file(str(tmp_path), plan[index].key)) is not None
    seen = []
    snapshot, content = run_stage(
        wanted,
        plan[index],
        before,
        WORKER,
        str(tmp_path),
        on_epoch=lambda report: seen.append(report.epochs_done) or True,
    )
    assert seen == list(range(2, plan[index].epochs + 1))
    undisturbed = run_plan_to(wanted, storage, index)
    assert same(snapshot, undisturbed)
    kept = snapshot.records[-1].metrics
    assert kept == undisturbed.records[-1].metrics
    assert read_bytes(epoch_file(str(tmp_path), plan[index].key)) is None
    assert read_bytes(snapshot_file(str(tmp_path), plan[index].key)) == content


def run_plan_to(wanted, storage, index):
    from rayprune.results.stages import load_snapshot
    from rayprune.snapshot.encoding import decode

    return decode(load_snapshot(storage, make_plan(wanted)[index].key))


def test_a_stage_that_nobody_wants_ends_at_its_next_epoch(small, tmp_path):
    wanted = experiment(small)
    seen = []
    result = run_stage(
        wanted,
        make_plan(wanted)[0],
        None,
        WORKER,
        str(tmp_path),
        on_epoch=lambda report: seen.append(report) or False,
    )
    assert result is None and len(seen) == 1
    assert finished_records(str(tmp_path), make_plan(wanted)[0].key) is None


def test_a_cycle_without_epochs_prunes_and_measures(finished, small):
    _, storage, _ = finished
    wanted = experiment(small, retrain={"epochs": 0})
    record = run_plan(wanted, WORKER, storage).records[-1]
    assert record.epochs == 0 and record.lr_peak is None
    assert record.metrics["val_accuracy"] == record.metrics["pruned_val_accuracy"]


def test_the_same_seed_gives_all_methods_the_same_start(small):
    one, two = experiment(small), experiment(small, prune={"sparsity": 0.5})
    a, b = (load_dataset(e.data, e.seed) for e in (one, two))
    assert a is b
    assert make_plan(one)[0].key == make_plan(two)[0].key


def test_divergence_is_told_with_what_to_change(small, tmp_path):
    wild = experiment(small, optim={"lr": 1e6})
    with pytest.raises(TrainingDivergedError, match=r"diverged in epoch 1.*Lower optim\.lr"):
        run_plan(wild, WORKER, str(tmp_path))


def test_a_batch_larger_than_the_data_is_told(small, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size must be <= the 540"):
        run_plan(experiment(small, batch_size=600), WORKER, str(tmp_path))


def test_test_images_are_read_once_a_stage(small, tmp_path, monkeypatch):
    from rayprune.training import stage as module

    wanted = experiment(small)
    dataset = load_dataset(wanted.data, wanted.seed)
    read = []
    measure = module._measure
    monkeypatch.setattr(
        module,
        "_measure",
        lambda training, split: read.append(split is dataset.test) or measure(training, split),
    )
    run_plan(wanted, WORKER, str(tmp_path))
    assert sum(read) == 2 and len(read) > 4


def test_a_dense_run_does_not_depend_on_what_its_trials_ignore(small, tmp_path):
    """It is shared: a pattern that matches nothing is one trial's mistake, in its own cycle."""
    wrong = experiment(small, prune={"sparsity": 0.9, "ignore": ["no_such_layer"]})
    with pytest.raises(ValueError, match=r"prune\.ignore must match.*'no_such_layer'"):
        run_plan(wrong, WORKER, str(tmp_path))
    dense = make_plan(experiment(small))[0]
    assert finished_records(str(tmp_path), dense.key) is not None
