"""Epochs, sparsities and goals that follow from an experiment."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import (
    cycle_epochs,
    make_plan,
    method_name,
)


def experiment(**fields):
    return Experiment.model_validate(fields)


def plan_of(**fields):
    return make_plan(experiment(**fields))


def keys(**fields):
    return [stage.key for stage in plan_of(**fields)]


def test_imp_removes_the_same_fraction_each_cycle():
    plan = plan_of(prune={"sparsity": 0.95, "cycles": 3})
    assert [s.cycle for s in plan] == [0, 1, 2, 3]
    assert [s.sparsity for s in plan] == pytest.approx([0, 0.6316, 0.86428, 0.95], abs=5e-5)
    assert plan[-1].sparsity == 0.95


def test_a_goal_of_whole_cycles_takes_no_cycle_more():
    plan = plan_of(prune={"sparsity": 0.75, "fraction_per_cycle": 0.5})
    assert [s.sparsity for s in plan[1:]] == [0.5, 0.75]


def test_bimp_gives_the_remainder_to_the_last_cycle():
    fields = {"budget": {"epochs": 120, "dense_epochs": 20}, "prune": {"cycles": 3}}
    plan = plan_of(**fields)
    assert [s.epochs for s in plan] == [20, 33, 33, 34]
    assert plan[0].schedule == "linear" and plan[1].schedule == "allr"
    assert method_name(experiment(**fields)) == "bimp"


@pytest.mark.parametrize("cycles", [1, 2, 5])
def test_a_budget_is_spent_exactly(cycles):
    plan = plan_of(budget={"epochs": 23, "dense_share": 0.4}, prune={"cycles": cycles})
    assert sum(s.epochs for s in plan) == 23 and plan[0].epochs == 9


def test_a_method_takes_the_experiments_goal_unless_it_has_its_own():
    fields = {"dense": {"sparsify": {"method": "gmp"}}, "prune": {"sparsity": 0.8, "cycles": 0}}
    own = {"dense": {"sparsify": {"method": "gmp", "sparsity": 0.8}}, "prune": {"cycles": 0}}
    assert plan_of(**fields)[0].sparsity == 0.8
    assert keys(**fields) == keys(**own)
    assert method_name(experiment(**fields)) == "gmp"


@pytest.mark.parametrize("method", ["str", "cs", "dst"])
def test_a_method_that_finds_its_own_sparsity_has_no_goal(method):
    plan = plan_of(dense={"sparsify": {"method": method}}, prune={"sparsity": 0.8})
    assert [stage.sparsity for stage in plan] == [None, 0.8]


def test_a_budget_is_spent_exactly_also_with_rewinding():
    fields = {"budget": {"epochs": 20, "dense_epochs": 10}}
    wanted = experiment(**fields, prune={"rewind": {"epoch": 4}, "cycles": 3})
    assert cycle_epochs(wanted) == (3, 3, 4)
    assert sum(stage.epochs for stage in make_plan(wanted)) == 20
