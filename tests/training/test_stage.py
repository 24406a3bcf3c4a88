"""A stage keeps its masks, ends where an undisturbed one ends, and can be told to stop."""

import pytest
import torch
from made_plans import (
    WORKER,
    KilledError,
    assert_equal,
    content_file,
    experiment,
    kept,
    run,
    run_until_killed,
)
from torch import nn

from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.results.files import epoch_file
from rayprune.results.stages import finished_records
from rayprune.results.storage import read_bytes
from rayprune.training import stage as module
from rayprune.training.run import dataset_of, run_stage
from rayprune.training.stage import TrainingDivergedError


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A plan of two cycles, run undisturbed: experiment, storage, last snapshot."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    wanted = experiment(small, prune={"sparsity": 0.9, "cycles": 2})
    return wanted, storage, run(wanted, storage)[0]


def inputs_of(stage, storage):
    return {key: kept(storage, key) for key in stage.inputs.keys}


def test_pruned_weights_are_exactly_zero_and_exactly_as_many_as_asked(finished):
    _, _, snapshot = finished
    total = sum(mask.numel() for mask in snapshot.masks.values())
    assert sum(int((~m).sum()) for m in snapshot.masks.values()) == round(0.9 * total)
    for name, mask in snapshot.masks.items():
        pruned = snapshot.weights[name][~mask]
        assert (pruned == 0).all() and not torch.signbit(pruned).any()


def test_equal_experiments_end_with_equal_bits(finished, tmp_path):
    wanted, _, snapshot = finished
    assert_equal(run(wanted, tmp_path)[0], snapshot)


@pytest.mark.parametrize("cycle", [0, 1, 2])
def test_an_interrupted_stage_ends_with_the_bits_of_an_undisturbed_one(cycle, finished, tmp_path):
    """Killed after its first epoch, it goes on from the checkpoint of it."""
    wanted, storage, _ = finished
    stage = make_plan(wanted)[cycle]
    inputs = inputs_of(stage, storage)

    def die(report):
        raise KilledError

    def again(report):
        seen.append(report.epochs_done)
        return True

    with pytest.raises(KilledError):
        run_stage(wanted, stage, inputs, WORKER, str(tmp_path), on_epoch=die)
    assert read_bytes(epoch_file(str(tmp_path), stage.key)) is not None
    assert finished_records(str(tmp_path), stage.key) is None
    seen = []
    snapshot, content = run_stage(wanted, stage, inputs, WORKER, str(tmp_path), on_epoch=again)
    assert seen == list(range(2, stage.epochs + 1))
    assert_equal(snapshot, kept(storage, stage.key))
    assert read_bytes(epoch_file(str(tmp_path), stage.key)) is None
    assert read_bytes(content_file(str(tmp_path), stage.key)) == content


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first, self.second = nn.Linear(in_channels * 784, 64), nn.Linear(64, 64)
        self.third, self.last = nn.Linear(64, 64), nn.Linear(64, num_classes)
        self.third.weight = self.second.weight

    def forward(self, x):
        x = self.second(self.first(x.flatten(1)).relu()).relu()
        return self.last(self.third(x).relu())


def test_layers_that_share_a_weight_are_pruned_as_one(small, tmp_path):
    wanted = experiment(small, model={"target": f"{__name__}:Tied"})
    snapshot, _ = run(wanted, tmp_path / "undisturbed")
    assert "second.weight" in snapshot.masks and "third.weight" not in snapshot.masks
    assert torch.equal(snapshot.weights["second.weight"], snapshot.weights["third.weight"])
    assert not snapshot.weights["third.weight"][~snapshot.masks["second.weight"]].any()
    run_until_killed(wanted, tmp_path / "killed", epochs=4)
    again, executed = run(wanted, tmp_path / "killed")
    assert executed == [(1, 2)]
    assert_equal(again, snapshot)


def test_a_stage_reports_every_epoch_as_it_is_measured(small, tmp_path):
    wanted = experiment(small)
    (dense, _), reports = make_plan(wanted), []

    def on_epoch(report):
        reports.append(report)
        return True

    snapshot, _ = run_stage(wanted, dense, {}, WORKER, str(tmp_path), on_epoch=on_epoch)
    assert [report.epochs_done for report in reports] == [1, 2, 3]
    for report in reports:
        assert report.stage is dense and report.samples_per_second > 0
        assert report.metrics.keys() == {"val_loss", "val_accuracy", "train_loss"}
    assert reports[-1].metrics["val_loss"] == snapshot.records[-1].metrics["val_loss"]
    losses = [report.metrics["train_loss"] for report in reports]
    assert losses == sorted(losses, reverse=True), "it learns"


def test_a_stage_that_nobody_wants_ends_at_its_next_epoch(small, tmp_path):
    wanted = experiment(small)
    (dense, _), seen = make_plan(wanted), []

    def on_epoch(report):
        seen.append(report)
        return False

    assert run_stage(wanted, dense, {}, WORKER, str(tmp_path), on_epoch=on_epoch) is None
    assert len(seen) == 1
    assert finished_records(str(tmp_path), dense.key) is None
    assert read_bytes(epoch_file(str(tmp_path), dense.key)) is not None, "whoever wants it goes on"


def test_a_cycle_without_epochs_prunes_and_measures(finished, small):
    _, storage, _ = finished
    snapshot, executed = run(experiment(small, retrain={"epochs": 0}), storage)
    record = snapshot.records[-1]
    assert executed == []
    assert record.epochs == 0 and record.lr_peak is None and record.schedule == "none"
    assert record.metrics["val_accuracy"] == record.metrics["pruned_val_accuracy"]
    dense = kept(storage, record.weights_from)
    for name, mask in snapshot.masks.items():
        assert torch.equal(snapshot.weights[name], dense.weights[name].masked_fill(~mask, 0.0))


def test_divergence_is_told_with_what_to_change(small, tmp_path):
    wild = experiment(small, optim={"lr": 1e6})
    with pytest.raises(TrainingDivergedError, match=r"diverged in epoch 1.*Lower optim\.lr"):
        run(wild, tmp_path)


def test_test_images_are_read_once_a_stage(small, tmp_path, monkeypatch):
    wanted = experiment(small)
    dataset = dataset_of(wanted)
    read = []
    measure = module._measure

    def watched(setup, split, **how):
        read.append(split is dataset.test)
        return measure(setup, split, **how)

    monkeypatch.setattr(module, "_measure", watched)
    run(wanted, tmp_path)
    assert sum(read) == 2 and len(read) > 4


def volumes():
    inputs = torch.rand(40, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return {"train": (inputs, torch.arange(40) % 2), "test": (inputs[:8], torch.arange(8) % 2)}


def volume_net(num_classes):
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, num_classes))


def test_a_network_of_volumes_is_pruned_as_one_of_images_is(tmp_path):
    wanted = Experiment.model_validate(
        {
            "model": {"target": f"{__name__}:volume_net"},
            "data": {"target": f"{__name__}:volumes"},
            "batch_size": 10,
            "dense": {"epochs": 1},
            "retrain": {"epochs": 1},
            "prune": {"sparsity": 0.5},
        }
    )
    snapshot, _ = run(wanted, tmp_path)
    assert sorted(snapshot.masks) == ["0.weight", "2.weight"]
    for name, mask in snapshot.masks.items():
        assert torch.equal(snapshot.weights[name] != 0, mask)
    assert snapshot.records[-1].flops == 2 * 4 * 27 * 64 + 256 * 2
