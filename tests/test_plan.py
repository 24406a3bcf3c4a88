"""From experiments to stages; keys name results and nothing else."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import count_epochs, make_plan, method_name


def experiment(**fields):
    return Experiment.model_validate(fields)


def keys(**fields):
    return [stage.key for stage in make_plan(experiment(**fields))]


def test_imp_removes_the_same_fraction_each_cycle():
    plan = make_plan(experiment(prune={"sparsity": 0.95, "cycles": 3}))
    assert [s.sparsity for s in plan] == pytest.approx([0, 0.6316, 0.86428, 0.95], abs=5e-5)
    assert plan[-1].sparsity == 0.95
    assert [s.parent for s in plan] == [None, *(s.key for s in plan[:-1])]


def test_a_fixed_fraction_a_cycle_shares_its_first_cycles():
    short = make_plan(experiment(prune={"sparsity": 0.9, "fraction_per_cycle": 0.2}))
    long = make_plan(experiment(prune={"sparsity": 0.98, "fraction_per_cycle": 0.2}))
    assert short[1].sparsity == pytest.approx(0.2) and short[2].sparsity == pytest.approx(0.36)
    assert short[-1].sparsity == 0.9
    assert [s.key for s in short[:-1]] == [s.key for s in long[: len(short) - 1]]
    assert (
        count_epochs([short, long])["unique_epochs"] < count_epochs([short, long])["naive_epochs"]
    )


def test_a_goal_of_whole_cycles_takes_no_cycle_more():
    plan = make_plan(experiment(prune={"sparsity": 0.75, "fraction_per_cycle": 0.5}))
    assert [s.sparsity for s in plan[1:]] == [0.5, 0.75]


def test_bimp_gives_the_remainder_to_the_last_cycle():
    fields = {"budget": {"epochs": 120, "dense_epochs": 20}, "prune": {"cycles": 3}}
    plan = make_plan(experiment(**fields))
    assert [s.epochs for s in plan] == [20, 33, 33, 34]
    assert plan[0].schedule == "linear" and plan[1].schedule == "allr"
    assert method_name(experiment(**fields)) == "bimp"


@pytest.mark.parametrize("cycles", [1, 2, 5])
def test_a_budget_is_spent_exactly(cycles):
    plan = make_plan(
        experiment(budget={"epochs": 23, "dense_share": 0.4}, prune={"cycles": cycles})
    )
    assert sum(s.epochs for s in plan) == 23 and plan[0].epochs == 9


def test_cycles_without_epochs_prune_and_do_not_retrain():
    plan = make_plan(experiment(budget={"epochs": 10, "dense_epochs": 9}, prune={"cycles": 3}))
    assert [s.epochs for s in plan] == [9, 0, 0, 1]
    assert keys(retrain={"epochs": 0, "schedule": "llr"}) == keys(
        retrain={"epochs": 0, "schedule": "allr"}
    )


def test_all_cycles_adapt_or_only_the_last():
    every = make_plan(experiment(prune={"cycles": 3}))
    last = make_plan(experiment(prune={"cycles": 3}, allr={"adapt": "last"}))
    assert [s.adapt for s in every] == [False, True, True, True]
    assert [s.adapt for s in last] == [False, False, False, True]


def test_cycles_zero_is_the_dense_run():
    assert len(make_plan(experiment(prune={"cycles": 0}))) == 1


@pytest.mark.parametrize(
    ("fields", "first_that_differs"),
    [
        ({"seed": 1}, 0),
        ({"optim": {"lr": 0.2}}, 0),
        ({"dense": {"epochs": 13}}, 0),
        ({"batch_size": 64}, 0),
        ({"precision": "bfloat16"}, 0),
        ({"model": {"name": "resnet20"}}, 0),
        ({"data": {"name": "fashion_mini", "val_fraction": 0.2}}, 0),
        ({"prune": {"sparsity": 0.9}}, 1),
        ({"prune": {"allocation": "erk"}}, 1),
        ({"prune": {"ignore": ["conv1"]}}, 1),
        ({"retrain": {"epochs": 3}}, 1),
        ({"retrain": {"schedule": "llr"}}, 1),
    ],
)
def test_keys_change_from_the_stage_that_a_field_reaches(fields, first_that_differs):
    equal = [a == b for a, b in zip(keys(), keys(**fields), strict=True)]
    assert equal == [k < first_that_differs for k in range(2)]


def test_keys_do_not_depend_on_where_a_stage_runs_or_what_is_not_used():
    same = [
        {"data": {"name": "fashion_mini", "loader_workers": 7, "streaming": "always"}},
        {"retrain": {"epochs": 2, "schedule": "allr"}, "dense": {"epochs": 12}},
        {"allr": {"adapt": "last"}},  # one cycle is also the last one
    ]
    assert all(keys(**fields) == keys() for fields in same)
    llr = {"retrain": {"schedule": "llr"}, "prune": {"cycles": 2}}
    assert keys(**llr) == keys(**llr, allr={"adapt": "last"})


def test_lrw_longer_than_the_dense_run_is_an_error():
    with pytest.raises(ValueError, match=r"dense\.epochs=12, got 13"):
        make_plan(experiment(retrain={"schedule": "lrw", "epochs": 13}))
    with pytest.raises(ValueError, match="lrw"):
        make_plan(experiment(budget={"epochs": 10, "dense_epochs": 3}, retrain={"schedule": "lrw"}))


def test_ft_after_a_run_that_decays_to_zero_is_an_error():
    with pytest.raises(ValueError, match=r"dense\.schedule: stepped"):
        make_plan(experiment(dense={"schedule": "linear"}, retrain={"schedule": "ft"}))


def test_a_run_shorter_than_its_method_needs_is_an_error():
    sparsify = {"method": "gmp", "interval": 5}
    with pytest.raises(ValueError, match="10 epochs and more, got 9"):
        make_plan(experiment(dense={"epochs": 9, "sparsify": sparsify}, prune={"cycles": 0}))


def test_a_method_takes_the_experiments_goal_unless_it_has_its_own():
    fields = {"dense": {"sparsify": {"method": "gmp"}}, "prune": {"sparsity": 0.8, "cycles": 0}}
    own = {"dense": {"sparsify": {"method": "gmp", "sparsity": 0.8}}, "prune": {"cycles": 0}}
    assert make_plan(experiment(**fields))[0].sparsity == 0.8
    assert keys(**fields) == keys(**own)
    finds_its_own = {"dense": {"sparsify": {"method": "str"}}, "prune": {"cycles": 0}}
    assert make_plan(experiment(**finds_its_own))[0].sparsity == 0.0
    assert method_name(experiment(**fields)) == "gmp"
