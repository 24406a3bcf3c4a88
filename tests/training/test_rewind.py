"""Weight rewinding: a dense run in parts is the same run, and cycles start from one of them."""

from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as multiprocessing
from made_plans import (
    WORKER,
    assert_equal,
    convolutional,
    kept,
    run,
    run_until_killed,
    without_times,
)
from torch import distributed

from rayprune.plan import count_epochs, dense_run, make_plan, share_dense_runs
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.results.files import epoch_file
from rayprune.results.stages import finished_records
from rayprune.results.storage import read_bytes
from rayprune.snapshot import prune
from rayprune.training.network import make_model
from rayprune.training.run import dataset_of, run_plan, run_stage
from rayprune.training.worker import Worker, leave_process_group, training_process

EPOCHS = 4  # of the dense run


def network(wanted):
    return make_model(wanted, dataset_of(wanted))


def initial_weights(wanted):
    return network(wanted).state_dict()


def assert_masked(snapshot, weights):
    """The snapshot holds these weights, batch-norm statistics among them, under its masks."""
    for name, weight in weights.items():
        mask = snapshot.masks.get(name)
        expected = weight if mask is None else weight.masked_fill(~mask, 0.0)
        assert torch.equal(snapshot.weights[name], expected), name


def dense_only(small, **fields):
    return convolutional(small, dense={"epochs": EPOCHS}, prune={"cycles": 0}, **fields)


def rewound(small, epoch, *, retrain=None, **prune):
    prune = {"sparsity": 0.8, "rewind": {"epoch": epoch}, **prune}
    return convolutional(small, dense={"epochs": EPOCHS}, retrain=retrain or {}, prune=prune)


@pytest.fixture(scope="module")
def uncut(small, tmp_path_factory):
    """The dense run in one piece, undisturbed."""
    return run(dense_only(small), tmp_path_factory.mktemp("uncut"))[0]


@pytest.fixture(scope="module")
def parts(small, tmp_path_factory):
    """The dense run cut after each of its epochs: epochs done -> snapshot there."""
    storage = tmp_path_factory.mktemp("parts")
    plan = make_plan(dense_only(small), cut_dense_at=range(1, EPOCHS))
    run(dense_only(small), storage, plan)
    return {stage.last_epoch: kept(storage, stage.key) for stage in plan}


@pytest.mark.parametrize("cuts", [[1], [3], [1, 3]])
def test_a_dense_run_ends_with_the_same_bits_wherever_it_is_cut(cuts, uncut, small, tmp_path):
    plan = make_plan(dense_only(small), cut_dense_at=cuts)
    assert len(plan) == len(cuts) + 1
    snapshot, executed = run(dense_only(small), tmp_path, plan)
    assert_equal(snapshot, uncut)
    assert executed == [(0, epoch) for epoch in range(1, EPOCHS + 1)]
    (record,) = snapshot.records
    assert record.epochs == EPOCHS and record.part_of is None
    assert snapshot.training_state == {}


def test_momentum_is_what_makes_it_so(uncut, small, tmp_path):
    """Without it the bits differ: the equality above is not for want of a difference."""
    plan = make_plan(dense_only(small), cut_dense_at=[1])
    beginning, _ = run(dense_only(small), tmp_path, plan[:1])
    parameters = [name for name, _ in network(dense_only(small)).named_parameters()]
    assert list(beginning.training_state) == [f"momentum_buffer:{name}" for name in parameters]
    assert all(momentum.any() for momentum in beginning.training_state.values())
    inputs = {plan[0].key: replace(beginning, training_state={})}
    ended, _ = run_stage(dense_only(small), plan[1], inputs, WORKER, str(tmp_path))
    assert not torch.equal(ended.weights["0.weight"], uncut.weights["0.weight"])


@pytest.mark.parametrize("cuts", [[2], [1, 3]])
@pytest.mark.parametrize("epochs", range(1, EPOCHS + 1))
def test_killed_in_any_part_it_goes_on_to_the_same_bits(cuts, epochs, uncut, small, tmp_path):
    plan = make_plan(dense_only(small), cut_dense_at=cuts)
    run_until_killed(dense_only(small), tmp_path, plan, epochs=epochs)
    snapshot, executed = run(dense_only(small), tmp_path, plan)
    # The last epoch of a part writes no checkpoint: its snapshot is one, once it is written.
    first = epochs if epochs in (*cuts, EPOCHS) else epochs + 1
    assert executed == [(0, epoch) for epoch in range(first, EPOCHS + 1)]
    assert_equal(snapshot, uncut)


def as_rank(rank, folder, wanted):
    """Both ranks run the dense run whole and in parts; rank 0 reads for the other."""
    address = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    worker = Worker(rank, 2)
    with training_process(1):
        whole = run_plan(wanted, make_plan(wanted), worker, f"{folder}/whole")
        plan = make_plan(wanted, cut_dense_at=[1])
        run_plan(wanted, plan[:1], worker, f"{folder}/parts")
        assert_equal(run_plan(wanted, plan, worker, f"{folder}/parts"), whole)
    assert whole.records[-1].workers == 2
    leave_process_group()


def test_the_parts_of_a_run_of_two_workers_end_with_the_same_bits(small, tmp_path):
    wanted = convolutional(small, dense={"epochs": 2}, prune={"cycles": 0})
    multiprocessing.spawn(as_rank, (str(tmp_path), wanted), nprocs=2)


def test_times_add_up_over_the_parts(small, tmp_path):
    plan = make_plan(dense_only(small), cut_dense_at=[2])
    snapshot, _ = run(dense_only(small), tmp_path, plan)
    beginning = kept(tmp_path, plan[0].key).records[-1]
    (whole,) = snapshot.records
    assert 0 < beginning.seconds < whole.seconds
    assert whole.samples_per_second * whole.seconds == pytest.approx(EPOCHS * 540)
    assert beginning.samples_per_second * beginning.seconds == pytest.approx(2 * 540)


def test_a_part_says_what_it_is_the_beginning_of(parts, small):
    plan = make_plan(dense_only(small), cut_dense_at=range(1, EPOCHS))
    for stage in plan[:-1]:
        (record,) = parts[stage.last_epoch].records
        assert record.key == stage.key and record.part_of == plan[-1].key
        assert record.epochs == stage.last_epoch
        assert record.weights_from == record.masks_from == stage.inputs.weights


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_cycle_starts_from_the_weights_of_its_epoch_under_the_masks_of_the_end(
    epoch, parts, uncut, small, tmp_path
):
    """Without retraining, what it starts from is what it ends with."""
    wanted = rewound(small, epoch, retrain={"epochs": 0})
    without = rewound(small, epoch, retrain={"epochs": 0}, rewind=None)
    snapshot, _ = run(wanted, tmp_path / "rewound")
    usual, _ = run(without, tmp_path / "usual")
    assert num_pruned(snapshot.masks) == round(0.8 * num_weights(snapshot.masks))
    for name, mask in snapshot.masks.items():
        assert torch.equal(mask, usual.masks[name])
    assert_masked(snapshot, parts[epoch].weights)
    assert not torch.equal(parts[epoch].weights["1.running_mean"], uncut.weights["1.running_mean"])
    of_that_epoch = prune(parts[epoch], make_plan(wanted)[-1], wanted.prune)
    assert any(not torch.equal(mask, snapshot.masks[name]) for name, mask in of_that_epoch.items())
    assert snapshot.training_state == {}


def test_rewinding_to_epoch_zero_starts_from_the_initial_weights(uncut, small, tmp_path):
    """The lottery ticket."""
    wanted = rewound(small, 0, retrain={"epochs": 0})
    assert len(make_plan(wanted)) == 2, "the dense run is whole"
    snapshot, executed = run(wanted, tmp_path)
    assert executed == [(0, epoch) for epoch in range(1, EPOCHS + 1)]
    assert_masked(snapshot, initial_weights(wanted))
    masks = prune(uncut, make_plan(wanted)[-1], wanted.prune)
    assert all(torch.equal(snapshot.masks[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("epoch", [0, 2])
def test_every_cycle_goes_back_to_the_same_epoch_and_masks_only_shrink(
    epoch, parts, small, tmp_path
):
    wanted = rewound(small, epoch, cycles=2, sparsity=0.84)  # .6 after the first
    plan = make_plan(wanted)
    last, executed = run(wanted, tmp_path)
    first = kept(tmp_path, plan[-2].key)
    length = EPOCHS - epoch
    assert [cycle for cycle, _ in executed] == [0] * EPOCHS + [1] * length + [2] * length
    total = num_weights(last.masks)
    assert num_pruned(first.masks) == round(0.6 * total)
    assert num_pruned(last.masks) == round(0.84 * total)
    for name, mask in last.masks.items():
        assert (mask <= first.masks[name]).all()
        assert not last.weights[name][~mask].any()

    # What the second cycle started from: the masks of its prune step, the weights of the epoch.
    inputs = {key: kept(tmp_path, key) for key in plan[-1].inputs.keys}
    untrained = replace(plan[-1], epochs=0, key="untrained")
    start, _ = run_stage(wanted, untrained, inputs, WORKER, str(tmp_path))
    assert_masked(start, parts[epoch].weights if epoch else initial_weights(wanted))
    assert all(torch.equal(start.masks[name], mask) for name, mask in last.masks.items())

    assert [r.cycle for r in last.records] == [0, 1, 2], "a part is no row of its own"
    dense, *cycles = last.records
    assert dense.key == dense_run(plan).key and dense.epochs == EPOCHS
    origin_key = plan[0].key if epoch else None
    assert [r.weights_from for r in cycles] == [origin_key] * 2
    assert [r.masks_from for r in cycles] == [dense.key, cycles[0].key]


def test_a_rewound_cycle_starts_with_a_fresh_optimiser(parts, small, tmp_path):
    """The momentum of the part that it starts from is not its own."""
    wanted = rewound(small, 2, retrain={"epochs": 1})
    plan = make_plan(wanted)
    with_momentum, _ = run(wanted, tmp_path / "with")
    beginning, end = parts[2], parts[EPOCHS]
    assert beginning.training_state
    inputs = {plan[0].key: replace(beginning, training_state={}), plan[1].key: end}
    without, _ = run_stage(wanted, plan[2], inputs, WORKER, str(tmp_path / "without"))
    assert_equal(with_momentum, without)


def test_trials_that_rewind_to_different_epochs_run_every_dense_epoch_once(uncut, small, tmp_path):
    """And exactly as many epochs are executed as the count of the plans says."""
    usual = convolutional(
        small, dense={"epochs": EPOCHS}, prune={"sparsity": 0.8}, retrain={"epochs": 2}
    )
    trials = [rewound(small, 3), usual, rewound(small, 1)]
    plans = share_dense_runs(trials)
    executed = []
    for trial, plan in zip(trials, plans, strict=True):
        snapshot, epochs = run(trial, tmp_path, plan)
        executed.append(epochs)
        assert without_times(snapshot.records[0]) == without_times(uncut.records[0])
    dense = [(0, epoch) for epoch in range(1, EPOCHS + 1)]
    assert executed == [
        [*dense, (1, 1)],
        [(1, 1), (1, 2)],
        [(1, 1), (1, 2), (1, 3)],
    ]
    count = count_epochs(plans)
    assert sum(map(len, executed)) == count.unique == EPOCHS + 1 + 2 + 3
    assert count.naive == 3 * EPOCHS + 1 + 2 + 3


def test_the_result_of_a_trial_does_not_depend_on_the_cuts_of_others(small, tmp_path):
    trials = [rewound(small, 1), rewound(small, 3)]
    together = share_dense_runs(trials)[1]
    alone = make_plan(trials[1])
    assert len(together) == len(alone) + 1
    a, _ = run(trials[1], tmp_path / "together", together)
    b, _ = run(trials[1], tmp_path / "alone", alone)
    assert_equal(a, b)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_checkpoint_of_the_uncut_run_serves_the_cut_one(epochs, uncut, small, tmp_path):
    """Killed after that many epochs, a study with rewinding to epoch 2 goes on from there."""
    run_until_killed(dense_only(small), tmp_path, epochs=epochs)
    plan = make_plan(dense_only(small), cut_dense_at=[2])
    snapshot, executed = run(dense_only(small), tmp_path, plan)
    # From after the cut, the part before it is gone and is made again; nothing else is.
    again = [1, 2] if epochs > 2 else []
    assert [e for _, e in executed] == again + list(range(epochs + 1, EPOCHS + 1))
    assert_equal(snapshot, uncut)
    beginning = kept(tmp_path, plan[0].key)
    assert beginning.training_state and beginning.records[-1].epochs == 2


def test_a_checkpoint_of_the_cut_run_serves_the_uncut_one(uncut, small, tmp_path):
    plan = make_plan(dense_only(small), cut_dense_at=[1])
    run_until_killed(dense_only(small), tmp_path, plan, epochs=3)
    snapshot, executed = run(dense_only(small), tmp_path)
    assert executed == [(0, 4)]
    assert_equal(snapshot, uncut)


def test_a_finished_dense_run_is_not_run_again_for_its_parts(small, tmp_path):
    """A trial that does not rewind needs its end alone; one that does needs its part as well."""
    run(dense_only(small), tmp_path)
    usual = convolutional(
        small, dense={"epochs": EPOCHS}, prune={"sparsity": 0.8}, retrain={"epochs": 1}
    )
    back = rewound(small, 2, retrain={"epochs": 1})
    plans = share_dense_runs([usual, back])
    assert [len(plan) for plan in plans] == [3, 3]
    assert run(usual, tmp_path, plans[0])[1] == [(1, 1)]
    assert run(back, tmp_path, plans[1])[1] == [(0, 1), (0, 2), (1, 1)]


def test_nothing_of_a_finished_dense_run_stays_behind(small, tmp_path):
    plan = make_plan(dense_only(small), cut_dense_at=[2])
    run(dense_only(small), tmp_path, plan)
    for stage in plan:
        assert read_bytes(epoch_file(str(tmp_path), stage.key)) is None
        assert finished_records(str(tmp_path), stage.key) is not None


def test_what_was_rewound_learns_real_images_again(small, tmp_path):
    snapshot, _ = run(rewound(small, 1), tmp_path)
    metrics = snapshot.records[-1].metrics
    assert metrics["val_accuracy"] > metrics["pruned_val_accuracy"]
    assert metrics["test_accuracy"] > 0.5
