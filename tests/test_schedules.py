"""Learning rates equal method.md's formulas to 1e-12, and its golden values."""

import itertools
import math

import pytest

from rayprune.schedules import allr_scale, constant, cosine, dense_lrs, linear, retrain_lrs, stepped

TINY = 1e-12
DENSE = dense_lrs("stepped", lr=0.1, num_steps=120)  # .1 .01 .001, 10 steps an epoch


def values(schedule, num_steps):
    return [schedule(i) for i in range(num_steps)]


def test_llr_has_the_golden_values():
    lrs = values(retrain_lrs("llr", num_steps=50, dense=DENSE), 50)
    golden = [0, 0.00955, 0.03455, 0.06545, 0.09045, 0.1, 0.09778, 0.09556]
    assert lrs[:8] == pytest.approx(golden, abs=5e-6)
    assert lrs[-2:] == pytest.approx([0.00444, 0.00222], abs=5e-6)


def test_allr_has_the_golden_peak_and_end():
    scale = allr_scale(0.3 / math.sqrt(0.9), 5 / 12 * 0)
    lrs = values(retrain_lrs("allr", num_steps=50, dense=DENSE, scale=scale), 50)
    assert max(lrs) == pytest.approx(0.0316228, abs=1e-7)
    assert lrs[-1] == pytest.approx(0.00070, abs=5e-6)


@pytest.mark.parametrize("num_steps", [1, 5, 10, 37, 50, 121])
@pytest.mark.parametrize("name", ["slr", "clr", "llr", "allr"])
def test_retraining_follows_its_formula(name, num_steps):
    dense = dense_lrs("stepped", lr=0.3, num_steps=200, warmup=0.1, milestones=(0.3, 0.6, 0.9))
    scale = 0.4 if name == "allr" else 1.0
    schedule = retrain_lrs(name, num_steps=num_steps, dense=dense, scale=scale)
    largest, smallest, w = 0.3, 0.3 * 0.1**3, math.floor(num_steps / 10)

    def after(i):
        u = (i - w) / (num_steps - w)
        if name == "clr":
            return smallest + (largest - smallest) * (1 + math.cos(math.pi * u)) / 2
        if name == "slr":
            entry = math.floor((i - w) * 200 / (num_steps - w))
            drops = (entry >= 60) + (entry >= 120) + (entry >= 180)
            return largest if entry < 20 else 0.3 * 0.1**drops
        return scale * largest * (1 - u)

    for i in range(num_steps):
        wanted = after(w) * (1 - math.cos(math.pi * i / w)) / 2 if i < w else after(i)
        assert schedule(i) == pytest.approx(wanted, abs=TINY)


def test_ft_is_the_smallest_dense_rate_without_warmup():
    dense = dense_lrs("stepped", lr=0.1, num_steps=100, warmup=0.2)
    assert dense.schedule(0) == 0  # a warm-up that starts at 0 is left out of the minimum
    assert values(retrain_lrs("ft", num_steps=30, dense=dense), 30) == pytest.approx([0.001] * 30)


def test_lrw_replays_the_last_dense_rates():
    lrs = values(retrain_lrs("lrw", num_steps=70, dense=DENSE), 70)
    assert lrs == values(DENSE.schedule, 120)[50:]


def test_lrw_refuses_more_than_the_dense_run_had():
    with pytest.raises(ValueError, match="121 steps of a dense run of 120"):
        retrain_lrs("lrw", num_steps=121, dense=DENSE)


def test_dense_schedules():
    assert values(stepped(1.0, 4), 4) == pytest.approx([1, 1, 0.1, 0.01])
    assert values(linear(1.0, 4), 5) == [1, 0.75, 0.5, 0.25, 0]
    assert values(cosine(1.0, 4, 0.2), 5) == pytest.approx([1, 0.88284271, 0.6, 0.31715729, 0.2])
    assert values(constant(0.5), 3) == [0.5] * 3


@pytest.mark.parametrize("name", ["stepped", "linear", "cosine", "constant"])
def test_warm_up_rises_from_zero_to_the_initial_rate(name):
    lrs = values(dense_lrs(name, lr=0.2, num_steps=100, warmup=0.25).schedule, 100)
    assert lrs[0] == 0 and lrs[25] == pytest.approx(0.2)
    assert all(a < b for a, b in itertools.pairwise(lrs[:26]))


@pytest.mark.parametrize(("d1", "d2", "d"), [(0.3, 0.1, 0.3), (0.1, 0.4, 0.4), (1.7, 0.2, 1.0)])
def test_allr_takes_the_larger_of_both_and_never_over_one(d1, d2, d):
    assert allr_scale(d1, d2) == d
