"""Paths of fields: which there are, which are whole numbers, and what stands there."""

import pytest

from rayprune.config import Experiment
from rayprune.config.fields import is_field, is_whole, meant, value_at


@pytest.mark.parametrize(
    "path",
    [
        "seed",
        "retrain",
        "retrain.epochs",
        "budget.dense_share",
        "prune.rewind.epoch",
        "prune.ignore",
        "dense.sparsify",
        "dense.sparsify.method",
        "dense.sparsify.momentum",  # of one method
        "model.kwargs.width",
        "model.kwargs.deep.er",
        "data.parquet.train",
    ],
)
def test_a_field_is_found_at_every_level(path):
    assert is_field(path)


@pytest.mark.parametrize("path", ["", "retrain.epoch", "epochs", "seed.more", "dense.sparsify.x"])
def test_what_is_no_field_is_not(path):
    assert not is_field(path)


def test_whole_numbers_are_known():
    whole = ["retrain.epochs", "seed", "prune.rewind.epoch"]
    assert all(map(is_whole, whole))
    others = ["retrain.lr", "dense.milestones", "model.kwargs.width", "retrain.schedule", "nowhere"]
    assert not any(map(is_whole, others))


def test_a_value_is_found_in_values_and_dictionaries():
    experiment = Experiment.model_validate({"model": {"name": "m", "kwargs": {"deep": {"er": 3}}}})
    assert value_at(experiment, "model.kwargs.deep.er") == 3
    assert value_at(experiment, "optim.momentum") == 0.9
    assert value_at(experiment, "budget.epochs") is None
    assert value_at(experiment, "prune.rewind.epoch") is None


def test_what_was_meant_is_a_field_or_another_word():
    assert meant("retrain.epoch") == " Did you mean epochs?"
    assert meant("waay", ["way"]) == " Did you mean way?"
