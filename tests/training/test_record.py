"""A record says what its stage did, and counts by hand."""

import pytest
from made_plans import convolutional, experiment, kept, run

from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned
from rayprune.results.stages import finished_records

BIASES_AND_NORMS = 16 + 32 + 32 + 64 + 10
SIZES = {"0.weight": 9 * 16, "3.weight": 9 * 16 * 32, "7.weight": 49 * 32 * 10}
PLACES = {"0.weight": 14 * 14, "3.weight": 7 * 7, "7.weight": 1}  # where a weight is used


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A plan of two cycles: experiment, storage, last snapshot."""
    storage = str(tmp_path_factory.mktemp("records"))
    prune = {"sparsity": 0.9, "cycles": 2, "ignore": ["7"]}
    wanted = convolutional(small, prune=prune)
    return wanted, storage, run(wanted, storage)[0]


def test_records_follow_the_plan(finished):
    wanted, storage, snapshot = finished
    plan, records = make_plan(wanted), snapshot.records
    assert [r.cycle for r in records] == [0, 1, 2]
    assert [r.key for r in records] == [stage.key for stage in plan]
    before = [None, plan[0].key, plan[1].key]
    assert [r.weights_from for r in records] == [r.masks_from for r in records] == before
    assert [r.epochs for r in records] == [3, 2, 2]
    assert [r.schedule for r in records] == ["stepped", "allr", "allr"]
    assert [r.goal_sparsity for r in records] == [stage.sparsity for stage in plan]
    assert all(r.part_of is None and r.workers == 1 for r in records)
    assert finished_records(storage, plan[-1].key) == records


def test_sparsity_counts_what_may_be_pruned_and_size_the_whole_network(finished):
    wanted, storage, snapshot = finished
    for stage, record in zip(make_plan(wanted), snapshot.records, strict=True):
        masks = kept(storage, stage.key).masks
        pruned = {name: num_pruned({name: mask}) for name, mask in masks.items()}
        assert pruned["7.weight"] == 0
        # A dense run is shared by trials that ignore other weights: it counts all, and none is 0.
        assert record.sparsity == sum(pruned.values()) / (9 * 16 + 9 * 16 * 32)
        assert record.num_parameters == sum(SIZES.values()) + BIASES_AND_NORMS
        assert record.num_nonzero == record.num_parameters - sum(pruned.values())
        assert record.compression == record.num_parameters / record.num_nonzero
        assert record.flops == sum(SIZES[name] * PLACES[name] for name in SIZES)
        assert record.flops - record.flops_nonzero == sum(
            pruned[name] * PLACES[name] for name in SIZES
        )
        assert record.theoretical_speedup == record.flops / record.flops_nonzero
    assert [r.sparsity for r in snapshot.records] == pytest.approx(
        [0, 1 - 0.1**0.5, 0.9], abs=1 / 4752
    )


def test_allrs_numbers_are_those_of_its_cycles(finished):
    dense, *cycles = finished[2].records
    assert (dense.d1, dense.d2, dense.d, dense.lr_peak) == (None, None, None, 0.05)
    for record in cycles:
        assert record.d2 == 2 / 3 and record.d1 > 0
        assert record.d == min(1, max(record.d1, record.d2))
        assert record.lr_peak == pytest.approx(record.d * 0.05)


def test_metrics_are_of_the_pruned_and_the_retrained_network(finished):
    dense, *cycles = finished[2].records
    final = {f"{split}_{kind}" for split in ("val", "test") for kind in ("loss", "accuracy")}
    assert dense.metrics.keys() == final
    for record in cycles:
        assert record.metrics.keys() == final | {"pruned_val_loss", "pruned_val_accuracy"}
        assert record.metrics["pruned_val_loss"] > record.metrics["val_loss"]
    assert dense.metrics["test_accuracy"] > 0.5, "real images are learnt"


def test_times_are_of_the_training_steps(finished):
    for record, epochs in zip(finished[2].records, (3, 2, 2), strict=True):
        assert record.seconds > 0
        assert record.samples_per_second == pytest.approx(epochs * 540 / record.seconds)


def test_a_stage_without_training_takes_no_time(small, tmp_path):
    record = run(experiment(small, retrain={"epochs": 0}), tmp_path)[0].records[-1]
    assert (record.seconds, record.samples_per_second, record.epochs) == (0, 0, 0)


def test_layers_that_lost_all_their_weights_are_named(small, tmp_path):
    """Global pruning to almost nothing leaves a layer with none."""
    wanted = convolutional(small, prune={"sparsity": 0.9995}, retrain={"epochs": 0})
    snapshot, _ = run(wanted, tmp_path)
    emptied = {name for name, mask in snapshot.masks.items() if not mask.any()}
    assert emptied
    assert set(snapshot.records[-1].emptied_layers) == emptied
