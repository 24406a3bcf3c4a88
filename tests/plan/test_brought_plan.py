"""A network that was trained elsewhere: what its plan is, what its keys hold, what it must say."""

import pytest

from rayprune.config import Experiment
from rayprune.plan import Conditions, dense_run, make_plan

PAST = {"trained_epochs": 90, "schedule": "stepped", "smallest_lr": 1e-4}


def experiment(*, dense=None, **fields):
    model = {"name": "resnet20", "weights": "trained.pt"}
    past = {"epochs": 0, **(PAST if dense is None else dense)}
    given = {"model": model, "dense": past, "optim": {"lr": 0.1}, **fields}
    return Experiment.model_validate(given)


def plan_of(*, contents="bytes", **fields):
    conditions = Conditions(contents={"model.weights": contents})
    return make_plan(experiment(**fields), conditions)


def keys(**fields):
    return [stage.key for stage in plan_of(**fields)]


def test_stage_0_only_measures():
    dense, cycle = plan_of()
    assert (dense.epochs, dense.schedule, dense.is_dense) == (0, "none", True)
    assert dense_run([dense, cycle]) is dense
    assert cycle.inputs.weights == cycle.inputs.masks == dense.key
    assert cycle.epochs == 2


def test_a_budget_may_be_all_retraining():
    budget = {"epochs": 10, "dense_epochs": 0}
    model = {"name": "resnet20", "weights": "trained.pt"}
    fields = {"model": model, "optim": {"lr": 0.1}, "budget": budget, "prune": {"cycles": 3}}
    plan = make_plan(Experiment.model_validate(fields))
    assert [stage.epochs for stage in plan] == [0, 3, 3, 4]


def test_keys_hold_the_bytes_and_not_the_path():
    other_path = {"model": {"name": "resnet20", "weights": "/elsewhere/copy.pt"}}
    assert keys() == keys(**other_path)
    assert not set(keys()) & set(keys(contents="other bytes"))


@pytest.mark.parametrize(
    "fields",
    [
        {"optim": {"lr": 0.2}},
        {"optim": {"name": "adamw", "lr": 0.1}},
        {"label_smoothing": 0.1},
        {"dense": {**PAST, "trained_epochs": 80}},
        {"dense": {**PAST, "smallest_lr": 1e-3}},
    ],
)
def test_the_measurement_is_shared_where_only_training_differs(fields):
    (dense, cycle), (other_dense, other_cycle) = keys(), keys(**fields)
    assert dense == other_dense and cycle != other_cycle


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"normalize": "none"}},
        {"model": {"name": "resnet20", "weights": "w.pt", "new_head": True}},
        {"prune": {"include": ["conv1.weight"]}},
        {"task": {"target": "nets:task"}},
        {"seed": 1},
    ],
)
def test_what_changes_the_measurement_is_in_its_key(fields):
    assert keys()[0] != keys(**fields)[0]


@pytest.mark.parametrize(
    ("schedule", "missing"),
    [
        ("ft", r"smallest learning rate .* Add dense\.smallest_lr$"),
        ("clr", r"smallest learning rate .* Add dense\.smallest_lr$"),
        ("lrw", r"Add dense\.schedule and dense\.trained_epochs, and optim\.lr"),
        ("slr", r"Add dense\.schedule and dense\.trained_epochs, and optim\.lr"),
    ],
)
def test_a_schedule_says_which_field_it_misses(schedule, missing):
    with pytest.raises(ValueError, match=rf"retrain\.schedule {schedule} .*{missing}"):
        plan_of(dense={}, retrain={"schedule": schedule})
    plan_of(retrain={"schedule": schedule})


def test_only_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"Add dense\.trained_epochs, and optim\.lr"):
        plan_of(dense={"schedule": "cosine"}, retrain={"schedule": "slr"})
    with pytest.raises(ValueError, match=r"0 after dense\.schedule linear\. Add dense\.smallest"):
        plan_of(dense={"schedule": "linear", "trained_epochs": 9}, retrain={"schedule": "ft"})
    with pytest.raises(ValueError, match=r"retrain\.epochs must be <= dense\.trained_epochs=90"):
        plan_of(retrain={"schedule": "lrw", "epochs": 91})


@pytest.mark.parametrize("schedule", ["llr", "allr"])
def test_these_need_the_largest_rate_alone(schedule):
    plan_of(dense={}, retrain={"schedule": schedule})
    with pytest.raises(ValueError, match=rf"{schedule} goes by the largest .* Add optim\.lr$"):
        plan_of(dense={}, optim={}, retrain={"schedule": schedule})


def test_a_rate_of_ones_own_needs_nothing_of_the_past():
    plan_of(dense={}, optim={}, retrain={"schedule": "linear", "lr": 0.01})
    plan_of(dense={"smallest_lr": 1e-3}, optim={}, retrain={"schedule": "ft"})
    plan_of(dense={}, optim={}, retrain={"epochs": 0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"name": "resnet20"}}, r"untrained resnet20\. Add model\.weights: FILE"),
        ({"prune": {"rewind": {"epoch": 0}}}, "goes back into the dense run, and .* has none"),
        (
            {"dense": {"sparsify": {"method": "gmp"}}},
            "works during the dense run, and dense.epochs: 0 has none",
        ),
        (
            {"dense": {"epochs": 3, "trained_epochs": 90}},
            r"dense\.trained_epochs .* trained here\. Write dense\.epochs: 0",
        ),
    ],
)
def test_what_contradicts_a_brought_network_is_told(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment(**fields)
