"""From experiments to stages: inputs first, dense runs shared, contradictions told."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import (
    EpochCount,
    Inputs,
    count_epochs,
    make_plan,
    share_dense_runs,
)


def experiment(**fields):
    return Experiment.model_validate(fields)


def plan_of(**fields):
    return make_plan(experiment(**fields))


def keys(**fields):
    return [stage.key for stage in plan_of(**fields)]


def rewound(epoch, *, dense_epochs=12, retrain=None, **prune):
    fields = {"dense": {"epochs": dense_epochs}, "retrain": retrain or {}}
    return experiment(**fields, prune={"rewind": {"epoch": epoch}, **prune})


def test_each_stage_goes_on_from_the_one_before():
    plan = plan_of(prune={"cycles": 3})
    before = [None, *(stage.key for stage in plan[:-1])]
    assert [s.inputs for s in plan] == [Inputs(weights=key, masks=key) for key in before]
    assert all(s.part_of is None and s.first_epoch == 0 for s in plan)


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


def test_lrw_longer_than_the_dense_run_is_an_error():
    with pytest.raises(ValueError, match=r"dense\.epochs=12, got 13"):
        plan_of(retrain={"schedule": "lrw", "epochs": 13})
    with pytest.raises(ValueError, match="lrw"):
        plan_of(budget={"epochs": 10, "dense_epochs": 3}, retrain={"schedule": "lrw"})


def test_ft_after_a_run_that_decays_to_zero_is_an_error():
    with pytest.raises(ValueError, match=r"dense\.schedule: stepped"):
        plan_of(dense={"schedule": "linear"}, retrain={"schedule": "ft"})


def test_patterns_to_ignore_reach_the_cycles_and_a_dense_run_that_sparsifies():
    prune = {"ignore": ["conv1"], "cycles": 2}
    assert [s.ignore for s in plan_of(prune=prune)] == [(), ("conv1",), ("conv1",)]
    sparsify = {"sparsify": {"method": "gmp"}}
    assert [s.ignore for s in plan_of(prune=prune, dense=sparsify)] == [("conv1",)] * 3


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
