"""A trained network is measured, pruned and retrained, with the rates of its past."""

import shutil
from dataclasses import replace

import pytest
import torch
from made_plans import convolutional, kept, run, run_until_killed
from test_rates import STEPS, made_snapshot, rates_of, values

from rayprune.config import Experiment
from rayprune.models import build_model
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.schedules import DenseLRs, retrain_lrs, stepped

LR, SMALLEST = 0.2, 0.004


def brought(dense, schedule, **fields):
    return Experiment.model_validate(
        {
            "model": {"name": "resnet20", "weights": "trained.pt"},
            "optim": {"lr": LR},
            "dense": {"epochs": 0, **dense},
            "retrain": {"epochs": 3, "schedule": schedule},
            **fields,
        }
    )


def cycle_of(wanted):
    return rates_of(wanted, make_plan(wanted)[-1])


def test_rates_follow_from_what_is_said_of_the_past():
    past = {"trained_epochs": 90, "schedule": "stepped"}
    steps = 90 * STEPS
    known = DenseLRs(stepped(LR, steps), steps, 0)
    for schedule in ("ft", "lrw", "slr", "clr", "llr"):
        wanted = brought(past, schedule)
        expected = retrain_lrs(schedule, num_steps=3 * STEPS, dense=known)
        assert values(cycle_of(wanted), 3 * STEPS) == [expected(i) for i in range(3 * STEPS)]


def test_the_smallest_rate_may_be_all_that_is_known():
    rates = cycle_of(brought({"smallest_lr": SMALLEST}, "ft"))
    assert set(values(rates, 3 * STEPS)) == {SMALLEST}
    rates = cycle_of(brought({"smallest_lr": SMALLEST}, "clr"))
    assert max(values(rates, 3 * STEPS)) == pytest.approx(LR)
    known = DenseLRs(lambda step: LR, 1, 0, given_smallest=SMALLEST)
    expected = retrain_lrs("clr", num_steps=3 * STEPS, dense=known)
    assert values(rates, 3 * STEPS) == [expected(i) for i in range(3 * STEPS)]


def test_allr_without_the_trained_epochs_goes_by_d1_alone():
    unknown = cycle_of(brought({}, "allr"))
    known = cycle_of(brought({"trained_epochs": 4}, "allr"))
    assert unknown.d1 == known.d1
    assert unknown.d2 is None and known.d2 == 3 / 4
    assert unknown.d == unknown.d1 and known.d == max(known.d1, 0.75)
    assert unknown.peak == pytest.approx(LR * unknown.d)


def test_a_cycle_without_epochs_has_no_share_of_unknown_ones():
    wanted = brought({}, "allr", retrain={"epochs": 0})
    assert rates_of(wanted, make_plan(wanted)[-1], made_snapshot()).d2 == 0


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A dense run here, and its weights as a file."""
    wanted = convolutional(small, prune={"cycles": 0}, dense={"epochs": 2})
    folder = tmp_path_factory.mktemp("trained")
    snapshot, _ = run(wanted, folder / "storage")
    file = folder / "network.pt"
    torch.save({"epoch": 2, "state_dict": dict(snapshot.weights)}, file)
    return snapshot, str(file)


def bring(small, file, **fields):
    model = {"target": "made_plans:small_net", "weights": file}
    dense = {"epochs": 0, "trained_epochs": 2, "schedule": "stepped"}
    return convolutional(small, model=model, dense=dense, **fields)


def test_it_is_measured_as_it_is_and_then_pruned_exactly(small, trained, tmp_path):
    before, file = trained
    wanted = bring(small, file, prune={"sparsity": 0.9, "cycles": 2})
    after, executed = run(wanted, tmp_path)
    dense, *cycles = make_plan(wanted)
    measured = kept(tmp_path, dense.key)
    assert all(torch.equal(w, before.weights[name]) for name, w in measured.weights.items())
    assert measured.records[-1].metrics == before.records[-1].metrics
    assert measured.records[-1].epochs == 0 and measured.records[-1].schedule == "none"
    assert executed == [(cycle, epoch) for cycle in (1, 2) for epoch in (1, 2)]
    assert num_pruned(after.masks) == round(0.9 * num_weights(after.masks))
    assert [record.cycle for record in after.records] == [0, 1, 2]
    assert cycles[-1].key == after.records[-1].key


def test_it_goes_on_as_if_it_had_been_trained_here(small, trained, tmp_path):
    """The same cycle after the same dense run, brought and not: the same bits."""
    _, file = trained
    there, _ = run(bring(small, file), tmp_path / "there")
    here, _ = run(convolutional(small, dense={"epochs": 2}), tmp_path / "here")
    assert all(torch.equal(w, here.weights[name]) for name, w in there.weights.items())
    records = [snapshot.records[-1] for snapshot in (there, here)]
    same = {"key": "", "weights_from": "", "masks_from": "", "seconds": 0, "samples_per_second": 0}
    assert replace(records[0], **same) == replace(records[1], **same)


def test_a_killed_run_equals_one_that_was_not(small, trained, tmp_path):
    _, file = trained
    wanted = bring(small, file, prune={"sparsity": 0.9, "cycles": 2})
    whole, _ = run(wanted, tmp_path / "whole")
    run_until_killed(wanted, tmp_path / "cut", epochs=3)
    again, _ = run(wanted, tmp_path / "cut")
    assert all(torch.equal(w, whole.weights[name]) for name, w in again.weights.items())


def test_it_may_be_trained_further_here(small, trained, tmp_path):
    """Fine-tuning: a dense run from the brought weights."""
    before, file = trained
    model = {"target": "made_plans:small_net", "weights": file}
    wanted = convolutional(small, model=model, dense={"epochs": 1}, prune={"cycles": 0})
    assert torch.equal(
        build_model(
            target="made_plans:small_net", weights=file, num_classes=10, in_channels=1
        ).state_dict()["0.weight"],
        before.weights["0.weight"],
    )
    after, executed = run(wanted, tmp_path)
    assert executed == [(0, 1)]
    assert not torch.equal(after.weights["0.weight"], before.weights["0.weight"])


def test_only_the_first_stage_reads_the_file(small, trained, tmp_path):
    """The cycles go on from its snapshot, also when the file is gone."""
    _, file = trained
    copy = tmp_path / "copy.pt"
    shutil.copy(file, copy)
    wanted = bring(small, str(copy))
    run_until_killed(wanted, tmp_path, epochs=1)
    torch.save({}, copy)
    after, executed = run(wanted, tmp_path)
    assert executed == [(1, 2)]
    expected, _ = run(bring(small, file), tmp_path / "whole")
    assert all(torch.equal(w, expected.weights[name]) for name, w in after.weights.items())
