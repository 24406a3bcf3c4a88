"""The choice of a setting is its best try by validation, of those that keep the goal."""

from dataclasses import replace

import pytest
from made_records import record

from rayprune.config import Study
from rayprune.results.tuning import choose
from rayprune.trials import make_trials

STR = {"dense.sparsify": {"method": "str"}}


def study_of(cases, tune=None, **search):
    space = {"method": {"cases": cases}}
    tune = {"tries": 3, "space": {"optim.lr": {"log_uniform": [0.01, 1]}}} | (tune or {})
    fields = {"space": space, "tune": tune, "seeds": [0, 1], **search}
    prune = {"prune": {"sparsity": 0.9, "cycles": 0}}
    return Study.model_validate({"experiment": prune, "search": fields})


def chosen(study, *results, setting=0):
    """Number of the try that is chosen when they came to (value or None, sparsity)."""
    tries = [trial for trial in make_trials(study) if trial.setting == setting]
    assert len(tries) == len(results)
    last = {}
    for trial, (value, sparsity) in zip(tries, results, strict=True):
        if value is not None:
            made = record(key=trial.key, cycle=0, sparsity=sparsity)
            metrics = {"val_accuracy": value, "val_loss": -value, "test_accuracy": 1 - value}
            last[trial.name] = replace(made, metrics=metrics)
    choice = choose(study, tries, last)
    return None if choice is None else tries.index(choice)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_by_validation_is_chosen_and_the_test_split_is_not_looked_at(metric):
    study = study_of({"STR": STR}, metric=metric)
    assert chosen(study, (0.5, 0.9), (0.7, 0.9), (0.6, 0.9)) == 1


def test_what_keeps_the_goal_comes_before_what_is_better_and_does_not():
    study = study_of({"STR": STR})
    assert chosen(study, (0.9, 0.5), (0.6, 0.91), (0.7, 0.895)) == 2, "a tenth more weights is kept"
    assert chosen(study, (0.9, 0.5), (0.6, 0.8), (0.7, 0.7)) == 1, "the nearest where none does"
    assert chosen(study, (0.9, 0.85), (0.6, 0.85), (0.95, 0.85)) == 2


def test_a_dense_setting_has_no_goal():
    assert chosen(study_of({"Dense": {}}), (0.5, 0.0), (0.9, 0.0), (0.7, 0.0)) == 1


def test_of_equal_tries_the_first_counts_and_one_without_a_value_never():
    study = study_of({"STR": STR})
    assert chosen(study, (0.7, 0.9), (0.7, 0.9), (0.7, 0.9)) == 0
    assert chosen(study, (None, 0), (0.1, 0.9), (float("nan"), 0.9)) == 1
    assert chosen(study, (None, 0), (None, 0), (None, 0)) is None


def test_a_try_counts_with_its_mean_over_the_seeds_of_tuning_and_with_all_of_them():
    study = study_of({"STR": STR}, {"tries": 2, "seeds": [100, 101]})
    assert chosen(study, (0.9, 0.9), (0.5, 0.9), (0.8, 0.9), (0.7, 0.9)) == 2
    assert chosen(study, (0.9, 0.9), (None, 0), (0.1, 0.9), (0.1, 0.9)) == 2
