"""Keys name results and nothing else: equal keys, equal results."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import Conditions, dense_run, make_plan


def experiment(**fields):
    return Experiment.model_validate(fields)


def plan_of(**fields):
    return make_plan(experiment(**fields))


def keys(**fields):
    return [stage.key for stage in plan_of(**fields)]


def rewound(epoch, *, dense_epochs=12, retrain=None, **prune):
    fields = {"dense": {"epochs": dense_epochs}, "retrain": retrain or {}}
    return experiment(**fields, prune={"rewind": {"epoch": epoch}, **prune})


@pytest.mark.parametrize(
    ("fields", "first_that_differs"),
    [
        ({"seed": 1}, 0),
        ({"optim": {"lr": 0.2}}, 0),
        ({"dense": {"epochs": 13}}, 0),
        ({"batch_size": 64}, 0),
        ({"precision": "bfloat16"}, 0),
        ({"recalibrate_batch_norm": True}, 0),
        ({"model": {"name": "resnet20"}}, 0),
        ({"data": {"name": "fashion_mini", "val_fraction": 0.2}}, 0),
        ({"prune": {"sparsity": 0.9}}, 1),
        ({"prune": {"allocation": "erk"}}, 1),
        ({"prune": {"ignore": ["conv1"]}}, 1),
        ({"prune": {"rewind": {"epoch": 0}}, "retrain": {"epochs": 2, "schedule": "allr"}}, 1),
        ({"retrain": {"epochs": 3}}, 1),
        ({"retrain": {"schedule": "llr"}}, 1),
    ],
)
def test_keys_change_from_the_stage_that_a_field_reaches(fields, first_that_differs):
    equal = [a == b for a, b in zip(keys(), keys(**fields), strict=True)]
    assert equal == [k < first_that_differs for k in range(2)]


def test_options_of_filters_are_in_the_keys_of_filters():
    filters = {"pattern": "filter", "sparsity": 0.5}
    changes = ({}, {"round_channels": 8}, {"couple_filters": True})
    assert len({keys(prune={**filters, **change})[-1] for change in changes}) == 3


@pytest.mark.parametrize("change", [{"milestones": [0.3, 0.6]}, {"factor": 0.2}])
def test_a_stepped_cycle_reads_the_dense_runs_steps_where_that_run_has_them(change):
    retrain = {"schedule": "stepped", "lr": 0.1}
    stepped = keys(dense={"schedule": "stepped"}, retrain=retrain)
    changed = keys(dense={"schedule": "stepped", **change}, retrain=retrain)
    assert all(one != other for one, other in zip(stepped, changed, strict=True))
    # Under a linear run a stepped cycle is linear, and nobody reads them.
    linear = keys(dense={"schedule": "linear"}, retrain=retrain)
    assert keys(dense={"schedule": "linear", **change}, retrain=retrain) == linear


CONDITIONS = [
    Conditions(),
    Conditions(workers=2),
    Conditions(threads=2),
    Conditions(device="cuda"),
    Conditions(contents={"data.root": "one"}),
    Conditions(contents={"data.root": "two"}),
    Conditions(contents={"data.parquet.train": "one"}),
    Conditions(contents={"model.weights": "one"}),
]


def test_every_condition_is_in_every_key():
    """Whoever goes on with other workers, devices or files gets nothing that these did not make."""
    data = {"parquet": {"train": "a", "test": "b"}, "root": "r"}
    plans = [make_plan(experiment(data=data), conditions) for conditions in CONDITIONS]
    for cycle in range(2):
        assert len({plan[cycle].key for plan in plans}) == len(CONDITIONS)


def test_where_files_lie_is_in_no_key():
    def of(place):
        files = {"train": f"{place}/train", "test": f"{place}/test"}
        contents = {"data.parquet.train": "one", "data.parquet.test": "two"}
        return make_plan(experiment(data={"parquet": files}), Conditions(contents=contents))

    assert of("/here") == of("s3://there")


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
