"""What contradicts itself is refused, and every field says what it is."""

import pytest
from pydantic import BaseModel, ValidationError

from rayprune.config import Experiment, Retrain, Study
from rayprune.config.sparsify import Gmp
from rayprune.schedules import OWN_SCHEDULES


def experiment(**fields):
    return Experiment.model_validate(fields)


@pytest.mark.parametrize("epoch", [0, 7])
def test_a_rewinding_epoch_is_kept(epoch):
    assert experiment(prune={"rewind": {"epoch": epoch}}).prune.rewind.epoch == epoch
    assert experiment().prune.rewind is None


def test_rewinding_needs_a_cycle():
    for none in ({"cycles": 0}, {"cycles": 0, "fraction_per_cycle": 0.2}):
        with pytest.raises(ValidationError, match=r"Write prune\.cycles: 1"):
            experiment(prune={"rewind": {"epoch": 0}, **none})
    experiment(prune={"cycles": 0})


def test_rewinding_needs_dense_weights():
    with pytest.raises(ValidationError, match=r"dense\.sparsify gmp has none"):
        experiment(prune={"rewind": {"epoch": 0}}, dense={"sparsify": {"method": "gmp"}})
    assert experiment(dense={"sparsify": {"method": "gmp"}}).dense.sparsify == Gmp()


def test_the_retraining_schedule_may_be_left_open():
    assert Retrain().schedule is None


@pytest.mark.parametrize("fields", [{"lr": 0.1}, {"warmup": 0.1}, {"lr": 0.1, "warmup": 0.0}])
@pytest.mark.parametrize("schedule", [None, "allr", "lrw"])
def test_schedules_of_the_dense_run_take_no_learning_rate(schedule, fields):
    name = f"schedule {schedule}" if schedule else "the default schedule"
    with pytest.raises(ValidationError, match=f"{name} takes its learning rates from the dense"):
        Retrain(schedule=schedule, **fields)


@pytest.mark.parametrize("schedule", OWN_SCHEDULES)
def test_schedules_of_the_users_own_need_one(schedule):
    with pytest.raises(ValidationError, match="needs an initial learning rate"):
        Retrain(schedule=schedule, warmup=0.1)
    assert Retrain(schedule=schedule, lr=0.1).lr == 0.1


def fields_below(kind, seen):
    """(model, field name, field) of all configuration values."""
    seen.add(kind)
    for name, field in kind.model_fields.items():
        yield kind, name, field
        found = [field.annotation]
        for inner in found:
            found += [a for a in getattr(inner, "__args__", ()) if a not in found]
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in seen:
                yield from fields_below(inner, seen)


def test_every_field_has_help_that_stands_alone():
    fields = list(fields_below(Study, set()))
    assert {kind.__name__ for kind, _, _ in fields} >= {"Study", "Rewind", "RigL", "Dimension"}
    for kind, name, field in fields:
        assert field.description, f"{kind.__name__}.{name} has no docstring"
        assert ".md" not in field.description, f"{kind.__name__}.{name}"
