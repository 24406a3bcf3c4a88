"""From experiments to stages; keys name results and nothing else."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import (
    EpochCount,
    Inputs,
    count_epochs,
    cycle_epochs,
    dense_run,
    make_plan,
    method_name,
    share_dense_runs,
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


def test_each_stage_goes_on_from_the_one_before():
    plan = plan_of(prune={"cycles": 3})
    before = [None, *(stage.key for stage in plan[:-1])]
    assert [s.inputs for s in plan] == [Inputs(weights=key, masks=key) for key in before]
    assert all(s.part_of is None and s.first_epoch == 0 for s in plan)


def test_inputs_name_every_key_once_weights_first():
    """Weights, masks, teacher, then the ingredients in their order."""
    inputs = Inputs(weights="w", masks="m", teacher="t", ingredients=("b", "a"))
    assert inputs.keys == ("w", "m", "t", "b", "a")
    soup = Inputs(weights="a", masks="m", teacher="m", ingredients=("c", "a", "b", "c"))
    assert soup.keys == ("a", "m", "c", "b")
    assert Inputs(masks="m", ingredients=("m",)).keys == ("m",)
    assert Inputs().keys == ()


def test_a_fixed_fraction_a_cycle_shares_its_first_cycles():
    short = plan_of(prune={"sparsity": 0.9, "fraction_per_cycle": 0.2})
    long = plan_of(prune={"sparsity": 0.98, "fraction_per_cycle": 0.2})
    assert short[1].sparsity == pytest.approx(0.2) and short[2].sparsity == pytest.approx(0.36)
    assert short[-1].sparsity == 0.9
    assert [s.key for s in short[:-1]] == [s.key for s in long[: len(short) - 1]]
    # 11 cycles of .2 reach .9 and 18 reach .98; the dense run and ten cycles are the same.
    assert count_epochs([short, long]) == EpochCount(
        unique=12 + 2 * (10 + 1 + 8), naive=24 + 2 * (11 + 18)
    )


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


def test_cycles_without_epochs_prune_and_do_not_retrain():
    plan = plan_of(budget={"epochs": 10, "dense_epochs": 9}, prune={"cycles": 3})
    assert [s.epochs for s in plan] == [9, 0, 0, 1]
    assert [s.schedule for s in plan] == ["linear", "none", "none", "allr"]
    assert keys(retrain={"epochs": 0, "schedule": "llr"}) == keys(
        retrain={"epochs": 0, "schedule": "allr"}
    )


def test_all_cycles_adapt_or_only_the_last():
    every = plan_of(prune={"cycles": 3})
    last = plan_of(prune={"cycles": 3}, allr={"adapt": "last"})
    assert [s.adapt for s in every] == [False, True, True, True]
    assert [s.adapt for s in last] == [False, False, False, True]


def test_cycles_zero_is_the_dense_run():
    assert len(plan_of(prune={"cycles": 0})) == 1


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
        ({"prune": {"recalibrate_batch_norm": True}}, 1),
        ({"prune": {"rewind": {"epoch": 0}}, "retrain": {"epochs": 2, "schedule": "allr"}}, 1),
        ({"retrain": {"epochs": 3}}, 1),
        ({"retrain": {"schedule": "llr"}}, 1),
    ],
)
def test_keys_change_from_the_stage_that_a_field_reaches(fields, first_that_differs):
    equal = [a == b for a, b in zip(keys(), keys(**fields), strict=True)]
    assert equal == [k < first_that_differs for k in range(2)]


@pytest.mark.parametrize("change", [{"milestones": [0.3, 0.6]}, {"factor": 0.2}])
def test_a_stepped_cycle_reads_the_dense_runs_steps_also_where_that_run_does_not(change):
    retrain = {"schedule": "stepped", "lr": 0.1}
    dense, cycle = keys(dense={"schedule": "linear"}, retrain=retrain)
    changed_dense, changed = keys(dense={"schedule": "linear", **change}, retrain=retrain)
    assert dense == changed_dense and cycle != changed
    # Neither reads them: the trials are one and the same.
    assert keys(dense={"schedule": "linear"}) == keys(dense={"schedule": "linear", **change})
    stepped, _ = keys(dense={"schedule": "stepped"}, retrain=retrain)
    assert keys(dense={"schedule": "stepped", **change}, retrain=retrain)[0] != stepped


@pytest.mark.parametrize("schedule", ["constant", "stepped", "cosine", "linear"])
def test_the_learning_rates_of_a_cycles_own_schedule_are_in_its_key_alone(schedule):
    retrain = {"schedule": schedule, "lr": 0.1}
    dense, cycle = keys(retrain=retrain)
    for change in ({"lr": 0.2}, {"warmup": 0.3}):
        changed_dense, changed = keys(retrain={**retrain, **change})
        assert changed_dense == dense and changed != cycle


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
        plan_of(retrain={"schedule": "lrw", "epochs": 13})
    with pytest.raises(ValueError, match="lrw"):
        plan_of(budget={"epochs": 10, "dense_epochs": 3}, retrain={"schedule": "lrw"})


def test_ft_after_a_run_that_decays_to_zero_is_an_error():
    with pytest.raises(ValueError, match=r"dense\.schedule: stepped"):
        plan_of(dense={"schedule": "linear"}, retrain={"schedule": "ft"})


def test_a_run_shorter_than_its_method_needs_is_an_error():
    sparsify = {"method": "gmp", "interval": 5}
    with pytest.raises(ValueError, match="10 epochs and more, got 9"):
        plan_of(dense={"epochs": 9, "sparsify": sparsify}, prune={"cycles": 0})
    assert plan_of(dense={"epochs": 10, "sparsify": sparsify}, prune={"cycles": 0})


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


def test_patterns_to_ignore_reach_the_cycles_and_a_dense_run_that_sparsifies():
    prune = {"ignore": ["conv1"], "cycles": 2}
    assert [s.ignore for s in plan_of(prune=prune)] == [(), ("conv1",), ("conv1",)]
    sparsify = {"sparsify": {"method": "gmp"}}
    assert [s.ignore for s in plan_of(prune=prune, dense=sparsify)] == [("conv1",)] * 3


# Weight rewinding: the dense run in parts, and cycles that start from one of them.


def rewound(epoch, *, dense_epochs=12, retrain=None, **prune):
    fields = {"dense": {"epochs": dense_epochs}, "retrain": retrain or {}}
    return experiment(**fields, prune={"rewind": {"epoch": epoch}, **prune})


def test_rewinding_cuts_the_dense_run_and_takes_weights_and_masks_from_its_two_ends():
    beginning, dense, first, second = make_plan(rewound(3, cycles=2))
    assert [s.cycle for s in (beginning, dense, first, second)] == [0, 0, 1, 2]
    assert (beginning.first_epoch, beginning.epochs, beginning.last_epoch) == (0, 3, 3)
    assert (dense.first_epoch, dense.epochs, dense.last_epoch) == (3, 9, 12)
    assert beginning.part_of == dense.key and dense.part_of is None
    assert beginning.inputs == Inputs()
    assert dense.inputs == Inputs(weights=beginning.key, masks=beginning.key)
    assert first.inputs == Inputs(weights=beginning.key, masks=dense.key)
    assert second.inputs == Inputs(weights=beginning.key, masks=first.key)


def test_rewinding_to_the_initial_weights_leaves_the_dense_run_whole():
    dense, cycle = make_plan(rewound(0))
    assert dense == plan_of(dense={"epochs": 12})[0]
    assert cycle.inputs == Inputs(weights=None, masks=dense.key)


def test_rewinding_retrains_for_the_epochs_after_its_own_on_the_dense_schedule():
    for epoch in (0, 3, 11):
        cycles = [s for s in make_plan(rewound(epoch, cycles=2)) if not s.is_dense]
        assert [(s.epochs, s.schedule, s.adapt) for s in cycles] == [(12 - epoch, "lrw", False)] * 2
    named = make_plan(rewound(3, retrain={"epochs": 5, "schedule": "llr"}))[-1]
    assert (named.epochs, named.schedule) == (5, "llr")
    without = make_plan(rewound(3, retrain={"epochs": 0}))[-1]
    assert (without.epochs, without.schedule) == (0, "none")


def test_a_budget_is_spent_exactly_also_with_rewinding():
    fields = {"budget": {"epochs": 20, "dense_epochs": 10}}
    wanted = experiment(**fields, prune={"rewind": {"epoch": 4}, "cycles": 3})
    assert cycle_epochs(wanted) == (3, 3, 4)
    assert sum(stage.epochs for stage in make_plan(wanted)) == 20


@pytest.mark.parametrize("cuts", [[1], [11], [2, 7], range(1, 12), [0, 5, 12, 99]])
def test_the_key_of_the_dense_runs_end_and_of_the_cycles_do_not_depend_on_the_cuts(cuts):
    whole, cut = plan_of(), make_plan(experiment(), cut_dense_at=cuts)
    parts = [stage for stage in cut if stage.is_dense]
    inside = sorted({epoch for epoch in cuts if 0 < epoch < 12})
    assert [part.last_epoch for part in parts] == [*inside, 12]
    assert [part.first_epoch for part in parts] == [0, *inside]
    assert sum(part.epochs for part in parts) == 12
    assert len({part.key for part in parts}) == len(parts)
    assert [s.key for s in cut[-2:]] == [s.key for s in whole] and cut[-1] == whole[-1]
    assert dense_run(cut) is cut[-2] and dense_run(whole) is whole[0]


def test_the_key_of_a_part_does_not_depend_on_other_cuts():
    """Nor on the trial that asked for it."""
    few, many = (make_plan(experiment(), cut_dense_at=cuts) for cuts in ([5], [2, 5, 9]))
    at_five = [next(s for s in plan if s.last_epoch == 5) for plan in (few, many)]
    assert at_five[0].key == at_five[1].key == make_plan(rewound(5, sparsity=0.3))[0].key


def test_rewinding_to_other_epochs_leads_to_other_cycles():
    retrain = {"epochs": 2, "schedule": "llr"}
    plans = [make_plan(rewound(epoch, retrain=retrain)) for epoch in (0, 1, 2)]
    plans.append(plan_of(retrain=retrain))
    assert len({plan[-1].key for plan in plans}) == 4
    assert len({dense_run(plan).key for plan in plans}) == 1


def test_trials_of_a_study_share_every_dense_epoch():
    trials = [rewound(3), rewound(7), rewound(0), experiment(), rewound(3, sparsity=0.8)]
    plans = share_dense_runs(trials)
    for plan in plans:
        assert [s.last_epoch for s in plan if s.is_dense] == [3, 7, 12]
    retraining = 9 + 5 + 12 + 2 + 9
    assert count_epochs(plans) == EpochCount(
        unique=12 + retraining, naive=len(trials) * 12 + retraining
    )
    apart = [make_plan(trial) for trial in trials]
    assert count_epochs(apart).naive == count_epochs(plans).naive
    assert count_epochs(apart).unique > count_epochs(plans).unique
    assert [plan[-1].key for plan in plans] == [plan[-1].key for plan in apart]


def test_only_equal_dense_runs_are_cut_alike():
    other = experiment(seed=1)
    sparsified = experiment(dense={"sparsify": {"method": "gmp"}}, prune={"cycles": 0})
    trials = [rewound(3), other, sparsified]
    assert share_dense_runs(trials)[1:] == [make_plan(other), make_plan(sparsified)]


def test_inputs_come_before_the_stages_that_need_them():
    for plan in share_dense_runs([rewound(3, cycles=3), rewound(7), experiment()]):
        done = set()
        for stage in plan:
            assert done.issuperset(stage.inputs.keys)
            done.add(stage.key)


@pytest.mark.parametrize("epoch", [12, 40])
def test_rewinding_to_the_end_or_past_it_is_an_error_with_its_remedy(epoch):
    with pytest.raises(ValueError) as caught:
        make_plan(rewound(epoch))
    assert str(caught.value).startswith("prune.rewind.epoch must be < the dense run's 12 epochs")
    assert f"got {epoch}. Write 11 or less, or leave prune.rewind out" in str(caught.value)
    assert make_plan(rewound(11))


def test_rewinding_inside_a_budgets_dense_run_counts_its_epochs():
    fields = {"budget": {"epochs": 10, "dense_epochs": 6}}
    with pytest.raises(ValueError, match=r"prune\.rewind\.epoch must be < the dense run's 6"):
        plan_of(**fields, prune={"rewind": {"epoch": 6}})
