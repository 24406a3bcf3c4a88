"""Tune's searchers and schedulers as a study names them, with their real libraries."""

import importlib
import logging

import cloudpickle
import pytest

from rayprune.config import ConfigError, Study
from rayprune.distributed import searchers
from rayprune.distributed.searchers import check_search, make_scheduler, make_searcher
from rayprune.trials import make_trial

SPACE = {
    "retrain.schedule": {"grid": ["llr", "constant"]},
    "retrain.lr": {"log_uniform": [0.001, 0.1], "when": "retrain.schedule == 'constant'"},
    "retrain.epochs": {"integers": [1, 4]},
    "dense.epochs": {"equals": "15 - retrain.epochs"},
    "prune.sparsity": {"uniform": [0.5, 0.9]},
    "dense.milestones": {"choice": [[0.5, 0.75], [0.3]]},
    "recalibrate_batch_norm": {"choice": [True, False]},
    "prune.fraction_per_cycle": {"choice": [None, 0.5]},
    "way": {"cases": {"one": {"prune.cycles": 1}, "two": {"prune.cycles": 2}}},
}
POINTS = [
    {
        "retrain.schedule": schedule,
        "retrain.lr": lr,
        "retrain.epochs": epochs,
        "dense.epochs": 15 - epochs,
        "prune.sparsity": sparsity,
        "dense.milestones": milestones,
        "recalibrate_batch_norm": epochs > 2,
        "prune.fraction_per_cycle": fraction,
        "way": way,
    }
    for schedule, lr, epochs, sparsity, milestones, fraction, way in (
        ("constant", 0.0123456789012345, 3, 0.7777777777777, [0.3], None, "two"),
        ("llr", None, 4, 0.9, [0.5, 0.75], 0.5, "one"),
        ("llr", None, 1, 0.5, [0.5, 0.75], None, "one"),
    )
]
NUMBERS = {"prune.sparsity": {"uniform": [0.5, 0.9]}, "optim.lr": {"uniform": [0.01, 0.9]}}


def has_old_bayesopt():
    return hasattr(importlib.import_module("bayes_opt"), "UtilityFunction")


needs_old_bayesopt = pytest.mark.skipif(
    not has_old_bayesopt(), reason="Ray Tune works with bayesian-optimization below 2"
)


def study_of(algorithm="grid", space=SPACE, experiment=None, **search):
    search = {"algorithm": algorithm, "space": space if algorithm != "grid" else {}, **search}
    return Study.model_validate({"search": search, "experiment": experiment or {}})


def proposed(study, number, points=(), metrics=("val_accuracy",)):
    """What a searcher proposes that hears of each point before the next."""
    searcher = make_searcher(study, points)
    found = []
    for trial in range(number):
        found.append(searcher.suggest(str(trial)))
        result = dict.fromkeys(metrics, 0.5 + trial / 100) | {"training_iteration": 1}
        searcher.on_trial_result(str(trial), result)
        searcher.on_trial_complete(str(trial), result)
    return found


@pytest.mark.parametrize("algorithm", ["optuna", "hyperopt"])
def test_what_is_known_comes_first_and_exactly_then_points_of_the_space(algorithm):
    study = study_of(algorithm)
    points = proposed(study, 30, POINTS)
    trials = [make_trial(study, str(n), point) for n, point in enumerate(points)]
    # Both libraries give known points back as they are, in their order, floats to the last bit.
    assert [dict(trial.values) for trial in trials[: len(POINTS)]] == POINTS
    assert not any(trial.mistake for trial in trials)
    assert {trial.values["retrain.epochs"] for trial in trials} == {1, 2, 3, 4}
    for name in ("retrain.schedule", "dense.milestones", "way", "prune.fraction_per_cycle"):
        assert len({repr(trial.values[name]) for trial in trials}) == 2
    assert all("dense.epochs" not in point for point in points), "what follows is not searched"


def test_optuna_is_asked_only_for_what_is_set_and_hyperopt_for_all():
    for algorithm in ("optuna", "hyperopt"):
        for point in proposed(study_of(algorithm), 12):
            is_set = "retrain.lr" in point
            assert is_set == (algorithm == "hyperopt" or point["retrain.schedule"] == "constant")


@needs_old_bayesopt
def test_bayesopt_gives_known_points_first_and_exactly():
    known = [{"prune.sparsity": 0.6123456789, "optim.lr": 0.1}]
    study = study_of("bayesopt", NUMBERS)
    points = proposed(study, 13, known)
    assert points[0] == known[0] and len({p["optim.lr"] for p in points}) == 13
    trials = [make_trial(study, str(n), point) for n, point in enumerate(points)]
    assert all(type(t.values["optim.lr"]) is float and not t.mistake for t in trials)


@pytest.mark.parametrize(
    "algorithm", ["optuna", "hyperopt", pytest.param("bayesopt", marks=needs_old_bayesopt)]
)
def test_the_experiments_seed_is_the_searchers_unless_it_has_its_own(algorithm):
    def first(own, seed):
        named = {"name": algorithm, **own}
        return proposed(study_of(named, NUMBERS, {"seed": seed}), 3)

    word = searchers.SEED_ARGUMENTS[algorithm]
    assert first({}, 1) == first({}, 1) != first({}, 2)
    assert first({word: 2}, 1) == first({word: 2}, 3) == first({}, 2)


@pytest.mark.parametrize(
    "algorithm", ["optuna", "hyperopt", pytest.param("bayesopt", marks=needs_old_bayesopt)]
)
@pytest.mark.parametrize("own_seed", [False, True])
def test_a_search_that_goes_on_draws_no_point_that_it_drew_before(algorithm, own_seed):
    """Nothing is learned so early: with the seed of before it would draw the same again."""
    own = {searchers.SEED_ARGUMENTS[algorithm]: 3} if own_seed else {}
    study = study_of({"name": algorithm, **own}, NUMBERS)
    before = proposed(study, 3)
    later = proposed(study, 6, before)
    assert later[:3] == before
    assert not [point for point in later[3:] if point is None or point in before]


def test_optuna_has_several_goals():
    study = study_of("optuna", metric=["val_accuracy", "num_nonzero"])
    searcher = make_searcher(study)
    assert (searcher.metric, searcher.mode) == (["val_accuracy", "num_nonzero"], ["max", "min"])
    assert len(proposed(study, 3, POINTS, study.search.metrics)) == 3


def test_one_goal_is_the_metric_or_how_sparse():
    loss = make_searcher(study_of("hyperopt", metric="val_loss"))
    assert (loss.metric, loss.mode) == ("val_loss", "min")
    for algorithm in ("optuna", "hyperopt"):
        sparse = make_searcher(study_of(algorithm, metric="val_loss", within_dense=0.1))
        assert (sparse.metric, sparse.mode) == ("goal", "max")


def test_optunas_space_can_be_pickled_and_optuna_says_nothing(capfd):
    searcher = cloudpickle.loads(cloudpickle.dumps(make_searcher(study_of("optuna"))))
    assert searcher.suggest("0").keys() <= SPACE.keys()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == logging.INFO, "what it is by itself"


def test_an_expression_without_a_value_is_a_mistake_of_the_point_and_ends_nothing():
    space = {
        "retrain.epochs": {"integers": [1, 2]},
        "prune.cycles": {"equals": "1 / (2 - retrain.epochs)"},
    }
    study = study_of("optuna", space)
    trials = [make_trial(study, "0", point) for point in proposed(study, 10)]
    assert {bool(t.mistake) for t in trials} == {True, False}
    assert all("divides by zero" in t.mistake for t in trials if t.values["retrain.epochs"] == 2)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (
            {"algorithm": {"name": "optuna", "sed": 1}},
            "search.algorithm optuna: no argument sed. It takes sampler, study_name, storage, seed",
        ),
        (
            {"algorithm": {"name": "hyperopt", "seed": 1}},
            "It takes n_initial_points, random_state_seed, gamma",
        ),
        (
            {"algorithm": {"name": "optuna", "sampler": "TPE"}},
            "search.algorithm optuna: You can only pass an instance of",
        ),
        (
            {"algorithm": {"name": "hyperopt", "random_state_seed": "x"}},
            "search.algorithm hyperopt: ",
        ),
        (
            {"scheduler": {"name": "asha", "grace": 1}},
            "search.scheduler asha: no argument grace. It takes max_t, grace_period, reduction_fa",
        ),
        (
            {"scheduler": {"name": "asha", "grace_period": 0}},
            "search.scheduler asha: grace_period must be positive",
        ),
        (
            {"scheduler": {"name": "asha", "grace_period": 5, "max_t": 3}},
            "search.scheduler asha: grace_period must be <= max_t",
        ),
        ({"scheduler": {"name": "fifo", "max_t": 3}}, "no argument max_t. It takes none"),
        ({"scheduler": {"name": "hyperband", "max_t": 0}}, "search.scheduler hyperband: "),
        (
            {"scheduler": {"name": "medianstopping", "max_t": 3}},
            "It takes grace_period, min_samples_required, min_time_slice, hard_stop",
        ),
    ],
)
def test_what_a_library_does_not_take_is_told_before_ray_starts(search, said):
    with pytest.raises(ConfigError) as caught:
        check_search(study_of(**search))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"algorithm": "random", "scheduler": "asha"},
        {"algorithm": {"name": "optuna", "seed": 3}, "scheduler": {"name": "asha", "brackets": 2}},
        {"algorithm": {"name": "hyperopt", "n_initial_points": 3}, "scheduler": "fifo"},
        {"scheduler": "hyperband"},
    ],
)
def test_what_is_right_is_taken(search):
    check_search(study_of(**search))


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ("optuna", "needs the package optuna: pip install 'rayprune[optuna]'"),
        ("hyperopt", "needs the package hyperopt: pip install 'rayprune[hyperopt]'"),
        ("bayesopt", "needs the package bayesian-optimization: pip install 'rayprune[bayesopt]'"),
        ("ax", "needs the package ax-platform: pip install 'ax-platform'"),
        ("hebo", "needs the package HEBO: pip install 'HEBO'"),
    ],
)
def test_a_missing_library_is_told_with_its_package(algorithm, said, monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, searchers.LIBRARIES[algorithm].module, None)
    with pytest.raises(ConfigError) as caught:
        check_search(study_of(algorithm, NUMBERS))
    assert str(caught.value) == f"search.algorithm {algorithm} {said}"


def test_a_bayesopt_that_is_too_new_is_told(monkeypatch):
    monkeypatch.delattr("bayes_opt.UtilityFunction", raising=False)
    with pytest.raises(ConfigError, match=r"works with bayesian-optimization below 2, got \d"):
        check_search(study_of("bayesopt", NUMBERS))


@pytest.mark.parametrize(
    ("scheduler", "kind", "fields"),
    [
        ("asha", "AsyncHyperBandScheduler", {"_max_t": 9, "_reduction_factor": 3}),
        ("async_hyperband", "AsyncHyperBandScheduler", {"_time_attr": "retrain_epochs"}),
        (
            {"name": "asynchyperband", "unit": "cycles", "max_t": 4, "reduction_factor": 2},
            "AsyncHyperBandScheduler",
            {"_time_attr": "cycles_done", "_max_t": 4, "_reduction_factor": 2},
        ),
        ("median_stopping_rule", "MedianStoppingRule", {"_grace_period": 1}),
        ({"name": "medianstopping", "grace_period": 3}, "MedianStoppingRule", {"_grace_period": 3}),
        ("hyperband", "HyperBandScheduler", {"_max_t_attr": 9, "_time_attr": "retrain_epochs"}),
        ("fifo", "FIFOScheduler", {}),
    ],
)
def test_a_scheduler_is_tunes_and_counts_what_trials_report(scheduler, kind, fields):
    made = make_scheduler(study_of(scheduler=scheduler), 9)
    assert type(made).__name__ == kind
    assert {name: getattr(made, name) for name in fields} == fields
    if kind != "FIFOScheduler":  # which is Tune's own way to go on
        assert made.set_search_properties("val_loss", "min"), "the metric is left to Tune"


def test_no_scheduler_is_none():
    assert make_scheduler(study_of(), 9) is None
    assert make_scheduler(study_of(scheduler="asha"), 0)._max_t == 1
