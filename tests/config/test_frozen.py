"""Values: equal ones hash equally, whatever they hold, and none ever changes."""

import copy
import pickle

import pytest
from pydantic import ValidationError

from rayprune.config import Dimension, Experiment, Model, Prune, Search, Study

NESTED = {"a": {"b": [1, {"c": None}], "d": "x"}, "e": (1.5, True), "f": {1, 2}}


def equal_pairs():
    yield Experiment(), Experiment()
    yield Model(name="m", kwargs=NESTED), Model(name="m", kwargs=copy.deepcopy(NESTED))
    yield Model(name="m", kwargs={"a": 1, "b": 2}), Model(name="m", kwargs={"b": 2, "a": 1})
    yield Model(name="m", kwargs={"a": [1, 2]}), Model(name="m", kwargs={"a": (1, 2)})
    yield Prune(sparsity=0), Prune(sparsity=0.0)
    yield Prune(), Prune(cycles=1)  # whether a default was written makes no difference
    grid = {"space": {"optim.lr": {"grid": [0.1, {"x": 1}]}}}
    yield Search.model_validate(grid), Search.model_validate(copy.deepcopy(grid))
    study = Study(experiment=Experiment(seed=3), search=Search(spaces=({}, {})))
    yield study, pickle.loads(pickle.dumps(study))


@pytest.mark.parametrize(("one", "other"), equal_pairs())
def test_equal_values_hash_equally_dictionaries_included(one, other):
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert {one: "found"}[other] == "found"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Experiment(), Experiment(seed=1)),
        (Model(name="m", kwargs={"a": 1}), Model(name="m", kwargs={"a": 2})),
        (Model(name="m", kwargs={"a": 1}), Model(name="m", kwargs={"b": 1})),
        # A builder may tell these apart, and stage keys do.
        (Model(name="m", kwargs={"a": 1}), Model(name="m", kwargs={"a": 1.0})),
        (Model(name="m", kwargs={"a": [1]}), Model(name="m", kwargs={"a": [True]})),
        (Dimension(grid=(1,)), Dimension(choice=(1,))),
        (Experiment(), "experiment"),
    ],
)
def test_a_cache_never_takes_one_value_for_another(one, other):
    assert one != other
    assert other not in {one: "found"}


def test_values_do_not_change_and_take_no_unknown_field():
    with pytest.raises(ValidationError, match="frozen"):
        Prune().sparsity = 0.5
    with pytest.raises(ValidationError, match="extra"):
        Prune(sparsitty=0.5)
