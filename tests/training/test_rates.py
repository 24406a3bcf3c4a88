"""The learning rates of a stage, and ALLR's numbers, from experiments and snapshots."""

import math

import pytest
import torch

from rayprune.config import Experiment
from rayprune.plan import dense_run, make_plan
from rayprune.pruning.masks import num_pruned
from rayprune.snapshot import Snapshot, prune
from rayprune.training.rates import cycle_rates, dense_rates

STEPS = 7  # an epoch


def experiment(**fields):
    return Experiment.model_validate({"optim": {"lr": 0.2}, "dense": {"epochs": 8}, **fields})


def made_snapshot():
    """Two prunable weights, a bias, and batch-norm statistics, which are large and no parameter."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "a.weight": torch.randn(20, 30, generator=generator),
        "b.weight": torch.randn(10, 20, generator=generator),
        "b.bias": torch.randn(10, generator=generator),
        "norm.running_var": torch.full((20,), 100.0),
    }
    masks = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in list(weights)[:2]}
    return Snapshot(weights, masks)


PARAMETERS = ("a.weight", "b.weight", "b.bias")


def rates_of(wanted, stage, before=None):
    before = before or made_snapshot()
    masks = prune(before, stage, wanted.prune)
    return cycle_rates(wanted, stage, before, masks, PARAMETERS, STEPS)


def values(rates, num_steps):
    return [rates.schedule(step) for step in range(num_steps)]


@pytest.mark.parametrize("schedule", ["stepped", "linear", "cosine", "constant"])
@pytest.mark.parametrize("cut", [1, 5])
def test_the_parts_of_a_dense_run_have_its_rates_at_its_steps(schedule, cut):
    dense = {"epochs": 8, "schedule": schedule, "warmup": 0.3}
    wanted = experiment(dense=dense)
    beginning, end, _ = make_plan(wanted, cut_dense_at=[cut])
    whole = dense_rates(wanted, make_plan(wanted)[0], STEPS)
    for part in (beginning, end):
        assert values(dense_rates(wanted, part, STEPS), 8 * STEPS) == values(whole, 8 * STEPS)
    assert dense_rates(wanted, end, STEPS).peak == whole.peak == pytest.approx(0.2)
    reached = dense_rates(wanted, beginning, STEPS).peak
    assert reached == max(values(whole, cut * STEPS))
    assert (reached < 0.2) == (cut == 1), "one epoch in, the rate still rises"
    assert (whole.d1, whole.d2, whole.d) == (None, None, None)


@pytest.mark.parametrize("schedule", ["stepped", "linear", "cosine", "constant"])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_after_a_rewind_the_rates_are_the_dense_ones_from_that_epoch_on(schedule, epoch):
    dense = {"epochs": 8, "schedule": schedule, "warmup": 0.3}
    wanted = experiment(dense=dense, prune={"rewind": {"epoch": epoch}, "cycles": 2})
    plan = make_plan(wanted)
    whole = values(dense_rates(wanted, dense_run(plan), STEPS), 8 * STEPS)
    for cycle in plan[-2:]:
        rates = rates_of(wanted, cycle)
        num_steps = cycle.epochs * STEPS
        assert cycle.epochs == 8 - epoch
        assert values(rates, num_steps) == whole[epoch * STEPS :]
        assert rates.peak == max(whole[epoch * STEPS :]) and rates.d == 1


def test_allr_takes_the_norm_that_the_prune_step_removes():
    wanted = experiment(prune={"sparsity": 0.6}, retrain={"epochs": 1})
    stage, before = make_plan(wanted)[-1], made_snapshot()
    rates = rates_of(wanted, stage, before)
    masks = prune(before, stage, wanted.prune)
    parameters = torch.cat([before.weights[name].flatten() for name in PARAMETERS])
    removed = torch.cat([before.weights[name][~mask] for name, mask in masks.items()])
    assert len(removed) == num_pruned(masks) == 480
    assert rates.d1 == pytest.approx(float(removed.norm() / parameters.norm()) / math.sqrt(0.6))
    assert rates.d2 == 1 / 8
    assert rates.d == rates.d1 > rates.d2
    assert rates.peak == pytest.approx(0.2 * rates.d)


def test_allr_takes_the_share_of_the_epochs_where_that_is_more():
    wanted = experiment(prune={"sparsity": 0.1}, retrain={"epochs": 6})
    rates = rates_of(wanted, make_plan(wanted)[-1])
    assert rates.d1 < rates.d2 == rates.d == 0.75
    longer = experiment(prune={"sparsity": 0.1}, retrain={"epochs": 16})
    rates = rates_of(longer, make_plan(longer)[-1])
    assert rates.d2 == 2 and rates.d == 1


@pytest.mark.parametrize("ignored", ["a", "b"])
def test_what_is_ignored_counts_in_the_norm_and_not_among_what_may_go(ignored):
    wanted = experiment(prune={"sparsity": 0.5, "ignore": [ignored]}, retrain={"epochs": 1})
    stage, before = make_plan(wanted)[-1], made_snapshot()
    (mask,) = (m for m in prune(before, stage, wanted.prune).values() if not m.all())
    other = "b.weight" if ignored == "a" else "a.weight"
    removed = before.weights[other][~mask]
    assert len(removed) == mask.numel() / 2
    parameters = torch.cat([before.weights[name].flatten() for name in PARAMETERS])
    expected = float(removed.norm() / parameters.norm()) / math.sqrt(0.5)
    assert rates_of(wanted, stage, before).d1 == pytest.approx(expected)


def test_only_what_adapts_lowers_its_peak():
    prune = {"sparsity": 0.8, "cycles": 2}
    last = experiment(prune=prune, allr={"adapt": "last"}, retrain={"epochs": 1})
    first, second = (rates_of(last, stage) for stage in make_plan(last)[1:])
    assert first.d == 1 and first.peak == pytest.approx(0.2, rel=1e-6) and first.d1 < 1
    assert second.d == max(second.d1, second.d2) < 1
    for schedule in ("ft", "lrw", "slr", "clr", "llr"):
        wanted = experiment(prune=prune, retrain={"epochs": 1, "schedule": schedule})
        rates = rates_of(wanted, make_plan(wanted)[-1])
        assert rates.d == 1 and rates.d1 > 0 and rates.d2 == 1 / 8, "measured all the same"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda u: 0.5),
        ("linear", lambda u: 0.5 * (1 - u)),
        ("cosine", lambda u: 0.25 * (1 + math.cos(math.pi * u))),
        ("stepped", lambda u: 0.5 * 0.3 ** (u >= 0.4)),
    ],
)
def test_a_cycles_own_schedule_takes_its_own_rate(schedule, expected):
    dense = {"epochs": 8, "schedule": "stepped", "milestones": [0.4], "factor": 0.3}
    retrain = {"epochs": 5, "schedule": schedule, "lr": 0.5}
    wanted = experiment(dense=dense, retrain=retrain)
    rates = rates_of(wanted, make_plan(wanted)[-1])
    num_steps = 5 * STEPS
    assert values(rates, num_steps) == pytest.approx([expected(i / 35) for i in range(num_steps)])
    assert rates.peak == 0.5 and rates.d == 1
    risen = experiment(dense=dense, retrain={**retrain, "warmup": 0.2})
    rates = rates_of(risen, make_plan(risen)[-1])
    assert rates.schedule(0) == 0 and rates.schedule(7) == pytest.approx(0.5)


def test_without_epochs_there_is_no_peak():
    for retrain in ({}, {"schedule": "lrw"}, {"schedule": "stepped", "lr": 0.5}):
        wanted = experiment(retrain={**retrain, "epochs": 0})
        rates = rates_of(wanted, make_plan(wanted)[-1])
        assert rates.peak is None and rates.d2 == 0 and rates.d1 > 0
