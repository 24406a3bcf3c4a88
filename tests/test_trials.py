"""Every point of a search space is a checked experiment, in a fixed order."""

import re
from collections import Counter

import numpy as np
import pytest

from rayprune.config import ConfigError, Study, load_study
from rayprune.config.load import shipped_studies
from rayprune.plan import count_epochs
from rayprune.points import drawn_points
from rayprune.trials import (
    check_space,
    make_trial,
    make_trials,
    num_proposed,
    num_reports,
    report_trials,
)

BIMP = {"dense.epochs": None, "budget": {"epochs": 6, "dense_share": 0.5}, "prune.cycles": 1}


def trials_of(**fields):
    return make_trials(Study.model_validate(fields))


def mistakes(**fields):
    with pytest.raises(ConfigError) as caught:
        trials_of(**fields)
    return str(caught.value).split("\n")


def test_no_search_is_one_trial_of_the_experiment_itself():
    (trial,) = trials_of(experiment={"seed": 3})
    assert (trial.name, trial.values, trial.experiment.seed) == ("0", {}, 3)


def test_a_grid_is_every_combination_in_a_fixed_order():
    search = {
        "space": {
            "retrain.schedule": {"grid": ["llr", "allr"]},
            "way": {"cases": {"one": {"prune.cycles": 1}, "three": {"prune.cycles": 3}}},
        },
        "seeds": [0, 1],
    }
    trials = trials_of(search=search)
    assert len(trials) == 8 and [t.name for t in trials] == [str(i) for i in range(8)]
    assert trials[0].values == {"retrain.schedule": "llr", "way": "one", "seed": 0}
    assert trials[-1].experiment.prune.cycles == 3 and trials[-1].experiment.seed == 1
    assert len({trial.experiment for trial in trials}) == 8
    assert trials_of(search=search) == trials


def test_a_case_changes_only_the_fields_that_it_names():
    cases = {"plain": {}, "lottery": {"prune.rewind.epoch": 0}}
    plain, lottery = trials_of(
        experiment={"prune": {"sparsity": 0.8}}, search={"space": {"way": {"cases": cases}}}
    )
    assert plain.experiment.prune.rewind is None
    assert lottery.experiment.prune.rewind.epoch == 0
    assert lottery.experiment.prune.sparsity == 0.8


def test_random_dimensions_are_drawn_alike_every_time_and_inside_their_range():
    search = {
        "space": {
            "optim.lr": {"log_uniform": [0.001, 0.1]},
            "prune.sparsity": {"uniform": [0.5, 0.9]},
            "dense.epochs": {"integers": [3, 4]},
            "prune.allocation": {"choice": ["global", "erk"]},
            "retrain.epochs": {"grid": [1, 2]},
        },
        "num_samples": 20,
    }
    trials = trials_of(search=search)
    assert len(trials) == 40 and trials_of(search=search) == trials
    assert trials_of(search=search, experiment={"seed": 1}) != trials
    assert all(0.001 <= t.experiment.optim.lr <= 0.1 for t in trials)
    assert all(0.5 <= t.experiment.prune.sparsity <= 0.9 for t in trials)
    assert {t.experiment.dense.epochs for t in trials} == {3, 4}
    assert {t.experiment.prune.allocation for t in trials} == {"global", "erk"}


def test_drawn_values_are_the_same_for_every_seed():
    space = {"optim.lr": {"uniform": [0.01, 1]}}
    rates = {}
    for trial in trials_of(search={"space": space, "num_samples": 3, "seeds": [0, 1]}):
        rates.setdefault(trial.experiment.seed, []).append(trial.experiment.optim.lr)
    assert rates[0] == rates[1] and len(set(rates[0])) == 3


def test_a_study_that_grows_keeps_the_trials_that_it_has():
    drawn = {"optim.lr": {"log_uniform": [0.01, 0.1]}, "prune.sparsity": {"uniform": [0.5, 0.9]}}
    space = {**drawn, "retrain.epochs": {"grid": [1, 2]}}
    few = {"space": space, "num_samples": 2, "seeds": [0, 1]}
    more = {**space, "retrain.epochs": {"grid": [3, 1, 2]}}
    before = {trial.experiment for trial in trials_of(search=few)}
    assert len(before) == 8
    for grown in (
        {**few, "num_samples": 5},
        {**few, "seeds": [2, 1, 0]},
        {**few, "space": more},
        {**few, "space": dict(reversed(space.items()))},
        {**few, "space": {}, "spaces": [{"prune.cycles": {"grid": [2]}}, more]},
    ):
        assert before <= {trial.experiment for trial in trials_of(search=grown)}
    assert len({e.optim.lr for e in before}) == len({e.prune.sparsity for e in before}) == 4


def test_several_spaces_are_their_union():
    spaces = [
        {"way": {"cases": {"imp": {"prune.cycles": 1}}}, "prune.sparsity": {"grid": [0.8, 0.9]}},
        {"way": {"cases": {"long": {"prune.cycles": 1, "dense.epochs": 20}}}},
    ]
    trials = trials_of(search={"spaces": spaces, "seeds": [0, 1]})
    assert len(trials) == 6
    assert [t.values["way"] for t in trials] == ["imp"] * 4 + ["long"] * 2
    assert trials[-1].values["prune.sparsity"] is None
    first, second = (trials_of(search={"space": space, "seeds": [0, 1]}) for space in spaces)
    assert [t.experiment for t in trials] == [t.experiment for t in first + second]


def values_of(**search):
    return [dict(trial.values) for trial in trials_of(search=search)]


def test_drawn_values_stay_what_they_were_in_earlier_versions():
    """A study that was begun goes on: what it has drawn is drawn again."""
    search = {
        "space": {
            "retrain.epochs": {"grid": [1]},
            "optim.lr": {"log_uniform": [0.01, 0.1]},
            "prune.allocation": {"choice": ["global", "erk", "lamp"]},
        },
        "num_samples": 2,
    }
    drawn = [
        (t.experiment.optim.lr, t.experiment.prune.allocation) for t in trials_of(search=search)
    ]
    assert drawn == [(0.020463531395787684, "lamp"), (0.07200255499000048, "erk")]


def test_a_dimension_may_follow_from_others():
    space = {
        "dense.epochs": {"equals": "15 - retrain.epochs * prune.cycles"},
        "retrain.epochs": {"grid": [1, 3]},
        "way": {"cases": {"one": {"prune.cycles": 1}, "three": {"prune.cycles": 3}}},
        "optim.lr": {"equals": "0.1 * dense.epochs / 12"},
    }
    trials = trials_of(search={"space": space})
    epochs = [t.experiment.dense.epochs for t in trials]
    assert epochs == [14, 12, 12, 6] == [t.values["dense.epochs"] for t in trials]
    assert [list(t.values) for t in trials] == [list(space)] * 4
    assert [t.experiment.optim.lr for t in trials] == [0.1 * e / 12 for e in epochs]


def test_a_whole_field_takes_a_float_without_a_fraction():
    trials = trials_of(search={"space": {"dense.epochs": {"equals": "12 / 2"}}})
    assert repr(trials[0].values["dense.epochs"]) == "6"
    (line,) = mistakes(search={"space": {"dense.epochs": {"equals": "13 / 2"}}})
    assert "experiment.dense.epochs" in line and "6.5" in line


def test_names_mean_the_point_else_the_experiment_else_its_default():
    def followed(text, space=None, **experiment):
        space = {**(space or {}), "optim.weight_decay": {"equals": text}}
        (trial,) = trials_of(search={"space": space}, experiment=experiment)
        return trial.values["optim.weight_decay"]

    assert followed("dense.epochs + retrain.epochs") == 12 + 2
    assert followed("dense.epochs", dense={"epochs": 7}) == 7
    assert followed("dense.epochs", budget={"epochs": 10, "dense_epochs": 4}) == 4
    assert followed("retrain.epochs", budget={"epochs": 10, "dense_epochs": 4}) == 6
    assert followed("dense.epochs", {"dense.epochs": {"grid": [3]}}, dense={"epochs": 7}) == 3
    assert followed("optim.momentum") == 0.9
    sparsify = {"grid": [{"method": "gmp", "interval": 0.3}]}
    assert followed("dense.sparsify.interval", {"dense.sparsify": sparsify}) == 0.3
    case = {"cases": {"a": {"model.kwargs.width": 5}}}
    assert followed("model.kwargs.width", {"way": case}, model={"name": "small_cnn"}) == 5
    (line,) = mistakes(search={"space": {"optim.lr": {"equals": "retrain.lr * 2"}}})
    assert "retrain.lr (None) is not a number" in line


CONSTANT = {
    "retrain.schedule": {"grid": ["llr", "constant", "allr"]},
    "retrain.lr": {"grid": [0.01, 0.1], "when": "retrain.schedule == 'constant'"},
}


def test_a_grid_has_each_point_once_where_a_dimension_is_not_set():
    assert values_of(space=CONSTANT) == [
        {"retrain.schedule": "llr", "retrain.lr": None},
        {"retrain.schedule": "constant", "retrain.lr": 0.01},
        {"retrain.schedule": "constant", "retrain.lr": 0.1},
        {"retrain.schedule": "allr", "retrain.lr": None},
    ]
    backwards = values_of(space=dict(reversed(CONSTANT.items())))
    assert sorted(map(repr, map(sorted, map(dict.items, backwards)))) == sorted(
        map(repr, map(sorted, map(dict.items, values_of(space=CONSTANT))))
    )


def test_what_is_not_set_is_the_experiments_own():
    space = {
        "prune.cycles": {"grid": [1, 2]},
        "retrain.epochs": {"grid": [5], "when": "prune.cycles == 2"},
        "dense.epochs": {"equals": "retrain.epochs"},
    }
    trials = trials_of(search={"space": space}, experiment={"retrain": {"epochs": 3}})
    assert [t.values["retrain.epochs"] for t in trials] == [None, 5]
    assert [t.experiment.dense.epochs for t in trials] == [3, 5]


def test_draws_beside_a_dimension_that_is_not_set_are_those_of_one_point():
    space = {**CONSTANT, "optim.lr": {"log_uniform": [0.01, 0.1]}}
    values = values_of(space=space, num_samples=3)
    assert len(values) == 4 * 3
    assert len({v["optim.lr"] for v in values}) == 12
    drawn = {"retrain.schedule": CONSTANT["retrain.schedule"]}
    drawn["retrain.lr"] = {"uniform": [0.01, 0.1], "when": "retrain.schedule == 'constant'"}
    values = values_of(space=drawn, num_samples=3)
    assert [v["retrain.schedule"] for v in values] == ["llr", *["constant"] * 3, "allr"]
    more = values_of(space=drawn, num_samples=5, seeds=[0, 1])
    assert all({**v, "seed": seed} in more for v in values for seed in (0, 1))


def test_a_grid_leaves_out_what_a_condition_excludes():
    space = {
        "retrain.epochs": {"grid": [1, 2, 3]},
        "way": {"cases": {"one": {"prune.cycles": 1}, "three": {"prune.cycles": 3}}},
    }
    where = ["retrain.epochs * prune.cycles <= 6", "way != 'one' or retrain.epochs > 1"]
    trials = trials_of(search={"space": space, "where": where, "seeds": [0, 1]})
    assert [(t.values["retrain.epochs"], t.values["way"]) for t in trials[::2]] == [
        (1, "three"),
        (2, "one"),
        (2, "three"),
        (3, "one"),
    ]
    assert [t.name for t in trials] == list("01234567")
    (line,) = mistakes(search={"space": space, "where": ["retrain.epochs > 3", "seed == 0"]})
    assert (
        line == "search.where excludes every point of the space: retrain.epochs > 3 and seed == 0"
    )
    (line,) = mistakes(search={"space": space, "where": ["retrain.lr < 1"]})
    assert line.startswith(
        "'retrain.lr < 1' has no value: retrain.lr (None) < 1 cannot be compared"
    )


def test_an_excluded_draw_is_drawn_again_and_growth_keeps_what_was_drawn():
    space = {"retrain.epochs": {"grid": [1, 2]}, "prune.sparsity": {"uniform": [0.1, 0.9]}}
    search = {"space": space, "where": ["prune.sparsity * retrain.epochs > 0.7"]}
    few = values_of(**search, num_samples=4)
    assert len(few) == 8 and all(v["prune.sparsity"] * v["retrain.epochs"] > 0.7 for v in few)
    more = values_of(**search, num_samples=9, seeds=[0])
    assert len(more) == 18 and all({**v, "seed": 0} in more for v in few)


RANDOM = {
    "retrain.schedule": {"grid": ["llr", "constant"]},
    "retrain.lr": {"log_uniform": [0.01, 0.1], "when": "retrain.schedule == 'constant'"},
    "retrain.epochs": {"integers": [1, 4]},
    "dense.epochs": {"equals": "15 - retrain.epochs"},
    "way": {"cases": {"one": {"prune.cycles": 1}, "two": {"prune.cycles": 2}}},
}


def test_random_points_draw_every_dimension_and_grow():
    search = {"space": RANDOM, "algorithm": "random", "num_samples": 12}
    trials = trials_of(search=search)
    assert len(trials) == 12 and trials_of(search=search) == trials
    assert {t.values["way"] for t in trials} == {"one", "two"}
    assert {t.experiment.prune.cycles for t in trials} == {1, 2}
    assert {t.values["retrain.schedule"] for t in trials} == {"llr", "constant"}
    for trial in trials:
        is_constant = trial.values["retrain.schedule"] == "constant"
        assert (trial.values["retrain.lr"] is not None) == is_constant
        assert trial.experiment.dense.epochs + trial.experiment.retrain.epochs == 15
    more = trials_of(search={**search, "num_samples": 20, "seeds": [1, 2]})
    assert [dict(t.values) for t in more[:24:2]] == [{**t.values, "seed": 1} for t in trials]
    assert [dict(t.values) for t in more[1:24:2]] == [{**t.values, "seed": 2} for t in trials]
    other = trials_of(search=search, experiment={"seed": 1})
    assert [t.values for t in other] != [t.values for t in trials]


def test_random_points_are_different_ones():
    space = {"retrain.epochs": {"grid": [1, 2, 3]}, "prune.cycles": {"choice": [1, 2]}}
    search = {"space": space, "algorithm": "random", "where": ["retrain.epochs > 1"]}
    assert len(values_of(**search, num_samples=50)) == 4
    assert values_of(**search, num_samples=2) == values_of(**search, num_samples=50)[:2]


def proposing(space=RANDOM, **fields):
    search = {"space": space, "algorithm": "optuna", **fields.pop("search", {})}
    return Study.model_validate({"search": search, **fields})


def test_a_searchers_points_are_not_known_before():
    assert make_trials(proposing()) == ()


def test_a_proposed_point_is_a_trial():
    study = proposing()
    proposed = {"way": "two", "retrain.epochs": 3, "retrain.schedule": "llr"}
    trial = make_trial(study, "7", proposed)
    assert trial == make_trial(study, "7", {**proposed, "retrain.lr": 0.5, "dense.epochs": 99})
    assert (trial.name, trial.mistake) == ("7", "")
    assert list(trial.values.items()) == [
        ("retrain.schedule", "llr"),
        ("retrain.lr", None),
        ("retrain.epochs", 3),
        ("dense.epochs", 12),
        ("way", "two"),
    ]
    assert trial.experiment.prune.cycles == 2 and trial.key == trial.plan[-1].key
    assert make_trial(study, "7", trial.values) == trial, "what the table has is the point"


def test_a_proposed_point_may_have_a_seed():
    proposed = {"way": "one", "retrain.epochs": 1, "retrain.schedule": "llr", "seed": 5}
    without = make_trial(proposing(), "0", proposed)
    assert without.experiment.seed == 5 and "seed" not in without.values
    with_seeds = make_trial(proposing(search={"seeds": [4, 5]}), "0", proposed)
    assert with_seeds.experiment.seed == 5 and list(with_seeds.values)[-1] == "seed"


def test_numbers_and_lists_of_libraries_are_the_studys():
    space = {
        "retrain.epochs": {"integers": [1, 4]},
        "optim.lr": {"uniform": [0.01, 1]},
        "prune.cycles": {"grid": [1, 2]},
        "dense.milestones": {"choice": [[0.5], [0.3, 0.6]]},
        "prune.allocation": {"grid": ["global", "erk"]},
    }
    proposed = {
        "retrain.epochs": np.float64(3),
        "optim.lr": np.float64(0.25),
        "prune.cycles": np.int64(2),
        "dense.milestones": "[0.3, 0.6]",
        "prune.allocation": np.str_("erk"),
    }
    trial = make_trial(proposing(space), "0", proposed)
    assert repr(list(trial.values.values())) == "[3, 0.25, 2, [0.3, 0.6], 'erk']"
    assert make_trial(proposing(space), "0", {**proposed, "dense.milestones": (0.3, 0.6)}) == trial


@pytest.mark.parametrize(
    ("proposed", "said"),
    [
        ({"retrain.schedule": "constant"}, "retrain.lr was not proposed"),
        ({"retrain.schedule": "lrw", "retrain.epochs": 9}, "retrain.epochs must be <= dense.epoch"),
        ({"retrain.epochs": 16}, "experiment.dense.epochs: should be greater than or equal to 0"),
        ({"way": "three"}, "way=three is none of one, two"),
        (
            {"retrain.epochs": 4, "way": "two"},
            "search.where: retrain.epochs * prune.cycles < 7 does not hold, "
            "at retrain.epochs=4, prune.cycles=2",
        ),
        ({"retrain.epochs": 1.5}, "retrain.epochs"),
    ],
)
def test_a_proposed_point_that_cannot_be_run_says_why_in_one_line(proposed, said):
    usual = {"retrain.schedule": "llr", "retrain.epochs": 3, "way": "one"}
    study = proposing(search={"where": ["retrain.epochs * prune.cycles < 7 or retrain.epochs > 4"]})
    said = said.replace("< 7 does", "< 7 or retrain.epochs > 4 does")
    trial = make_trial(study, "0", {**usual, **proposed})
    assert said in trial.mistake and "\n" not in trial.mistake
    assert (trial.plan, trial.key, trial.experiment) == ((), "", study.experiment)
    assert list(trial.values) == list(RANDOM)


def test_a_space_that_has_points_is_right():
    check_space(proposing())
    # Most draws exclude each other here, and some do not.
    check_space(proposing({"retrain.epochs": {"integers": [10, 20]}}, search={"seeds": [1]}))


@pytest.mark.parametrize(
    ("space", "search", "said"),
    [
        (
            {"prune.sparsitty": {"uniform": [0, 1]}, "way": {"cases": {"a": {"lr": 1}}}},
            {},
            "experiment.prune.sparsitty: no such field. Did you mean sparsity?\n"
            "experiment.lr: no such field. Did you mean optim.lr?",
        ),
        (
            {"retrain.epochs": {"integers": [13, 20]}, "retrain.schedule": {"grid": ["lrw"]}},
            {},
            "search.space: none of 8 points that were tried can be run; 1 of them because of: "
            "retrain.schedule lrw replays",
        ),
        ({"optim.lr": {"uniform": [-2, -1]}}, {}, "none of 50 points"),
        (
            {"optim.lr": {"uniform": [1, 2]}},
            {"where": ["optim.lr > 3"]},
            "search.where excludes every point of the space: optim.lr > 3",
        ),
    ],
)
def test_a_space_without_a_point_is_told_before_anything_runs(space, search, said):
    with pytest.raises(ConfigError) as caught:
        check_space(proposing(space, search=search))
    assert said in str(caught.value)


def heading_of(name):
    """The comment that a shipped study opens with."""
    return shipped_studies()[name].read_text().split("experiment:\n")[0].replace(",", "")


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_loads_and_opens_with_its_command_and_cost(name):
    study, heading = load_study(name), heading_of(name)
    assert f"python -m rayprune.tune {name}" in heading or name == "quickstart"
    number = len(make_trials(study)) + num_reports(study) or num_proposed(study)
    assert int(re.search(r"Expected: (\d+) trials", heading)[1]) == number
    assert "Cost:" in heading


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in shipped_studies()
        for search in [load_study(name).search]
        if search.algorithm.is_listed and search.tune is None
    ],
)
def test_a_shipped_study_opens_with_its_epochs(name):
    epochs = count_epochs([trial.plan for trial in make_trials(load_study(name))])
    heading = heading_of(name).split("Expected:")[1]
    is_shared = epochs.naive > epochs.unique
    saved = f" instead of {epochs.naive}" if is_shared else ""
    assert re.search(rf"\b{epochs.unique} epochs{saved}\b", heading)


@pytest.mark.parametrize("name", ["equal_budget", "cifar10_rivals"])
def test_a_shipped_comparison_opens_with_its_epochs_and_costs_the_same_for_every_method(name):
    study, heading = load_study(name), heading_of(name)
    tries = make_trials(study)
    (length,) = {sum(stage.epochs for stage in trial.plan) for trial in tries}
    numbers = re.search(r"at most (\d+) epochs (\d+) of them in tuning", heading)
    tuning = count_epochs(trial.plan for trial in tries).unique
    assert list(map(int, numbers.groups())) == [tuning + num_reports(study) * length, tuning]
    counts = Counter(trial.setting for trial in tries)
    assert set(counts.values()) == {study.search.tune.tries}


def test_the_shipped_search_opens_with_the_epochs_of_its_trials():
    study, heading = load_study("optuna_asha"), heading_of("optuna_asha")
    check_space(study)
    points = drawn_points(study, study.search.space, 200)
    trials = [make_trial(study, "0", point.values) for point in points]
    assert not any(trial.mistake for trial in trials)
    lengths = {sum(stage.epochs for stage in trial.plan) for trial in trials}
    low, high = map(int, re.search(r"trials of (\d+) to (\d+) epochs", heading).groups())
    assert (min(lengths), max(lengths)) == (low, high)
    (dense,) = {trial.plan[0] for trial in trials}
    assert f"{dense.epochs} epochs for the dense run and at most {high - dense.epochs}" in heading


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"search": {"space": {"prune.sparsity": {"grid": [0.9, 90]}}}}, "(at prune.sparsity=90)"),
        ({"search": {"space": {"prune.sparsitty": {"grid": [0.9]}}}}, "Did you mean sparsity"),
        (
            {
                "search": {"space": {"retrain.epochs": {"grid": [1, 13]}}},
                "experiment": {"retrain": {"schedule": "lrw"}},
            },
            "dense.epochs=12, got 13",
        ),
        (
            {"search": {"space": {"batch_size": {"grid": [4, 5]}}}, "scaling": {"workers": 2}},
            "experiment.batch_size=5 must be a multiple of scaling.workers=2",
        ),
        ({"search": {"space": {"num_workers": {"grid": [2]}}}}, "experiment.num_workers: no such"),
        (
            {"search": {"space": {"seed.more": {"grid": [2]}}}, "experiment": {"seed": 1}},
            "experiment.seed is a value, it has no fields (at seed.more=2)",
        ),
    ],
)
def test_a_point_that_cannot_be_run_is_named(fields, said):
    (line,) = mistakes(**fields)
    assert said in line


def test_a_mistake_of_many_points_is_told_once():
    space = {"retrain.epochs": {"grid": [1, 13, 14]}, "retrain.schedule": {"grid": ["lrw", "slr"]}}
    (one,) = mistakes(experiment={"prune": {"rewind": {"epoch": 12}}})
    assert one.endswith("to retrain from the end")
    (everywhere,) = mistakes(
        experiment={"prune": {"rewind": {"epoch": 12}}}, search={"space": space}
    )
    assert everywhere == one
    lines = mistakes(search={"space": space})
    assert [line.partition(" (at ")[2] for line in lines] == [
        "retrain.epochs=13, retrain.schedule=lrw)",
        "retrain.epochs=14, retrain.schedule=lrw)",
    ]
    space = {"retrain.epochs": {"grid": [1, 13]}, "optim.lr": {"grid": [0.1, 0.2]}}
    lrw = {"retrain": {"schedule": "lrw"}}
    (line,) = mistakes(experiment=lrw, search={"space": space})
    assert line.endswith("(at retrain.epochs=13, optim.lr=0.1 and 1 more)")


# ---- a study that tunes ----

TUNED = {
    "space": {
        "method": {"cases": {"GMP": {"dense.sparsify": {"method": "gmp"}}, "BIMP": BIMP}},
        "prune.sparsity": {"grid": [0.9, 0.95]},
    },
    "tune": {
        "tries": 4,
        "seeds": [100, 101],
        "space": {"optim.lr": {"log_uniform": [0.01, 1]}},
        "spaces": {"BIMP": {"prune.cycles": {"choice": [1, 2, 3]}}},
    },
    "seeds": [0, 1, 2],
}


def tuned(**search):
    experiment = {"dense": {"epochs": 6}, "prune": {"cycles": 0}}
    return Study.model_validate({"experiment": experiment, "search": TUNED | search})


def test_every_setting_gets_as_many_different_tries_the_first_as_it_is_written():
    trials = make_trials(tuned())
    assert len(trials) == 4 * 4 * 2 and {t.phase for t in trials} == {"tune"}
    for setting in range(4):
        tries = [t for t in trials if t.setting == setting]
        assert len({t.values["method"] for t in tries}) == 1
        assert len({t.values["prune.sparsity"] for t in tries}) == 1
        assert [t.experiment.seed for t in tries] == [100, 101] * 4
        assert len({t.key for t in tries}) == 8
        assert tries[0].values["optim.lr"] == 0.1 and tries[0].experiment.optim.lr == 0.1
        is_bimp = tries[0].values["method"] == "BIMP"
        assert {t.values["prune.cycles"] for t in tries} <= ({1, 2, 3} if is_bimp else {None})
        assert [t.values["optim.lr"] for t in tries] == [t.experiment.optim.lr for t in tries]


def test_tries_are_the_same_each_time_and_more_leave_those_that_there_are():
    study = tuned()
    before = study.model_dump()
    trials = make_trials(study)
    assert make_trials(study) == trials and study.model_dump() == before
    more = make_trials(tuned(tune=TUNED["tune"] | {"tries": 6}))
    assert {t.key for t in trials} < {t.key for t in more}


def test_the_choice_is_reported_on_every_seed_under_names_that_do_not_depend_on_others():
    study = tuned()
    tries = make_trials(study)
    first, last = (next(t for t in tries if t.setting == n) for n in (0, 3))
    reports = report_trials(study, tries, last)
    assert [t.name for t in reports] == ["41", "42", "43"] and num_reports(study) == 12
    assert [t.name for t in report_trials(study, tries, first)] == ["32", "33", "34"]
    for seed, trial in enumerate(reports):
        assert (trial.phase, trial.experiment.seed, trial.values["seed"]) == ("report", seed, seed)
        assert trial.values == {**last.values, "seed": seed}
        assert trial.experiment == last.experiment.model_copy(update={"seed": seed})


def test_settings_that_rewind_and_that_do_not_share_the_dense_run_of_a_report():
    space = {"prune.rewind": {"grid": [None, {"epoch": 3}]}}
    tune = {"tries": 1, "space": {"optim.lr": {"uniform": [0.01, 1]}}}
    fields = {"experiment": {"dense": {"epochs": 6}}, "search": TUNED | {"space": space}}
    fields["search"] |= {"tune": tune}
    study = Study.model_validate(fields)
    tries = make_trials(study)
    plain, rewound = (report_trials(study, tries, choice)[0].plan for choice in tries)
    assert plain[:2] == rewound[:2] and [s.epochs for s in plain[:2]] == [3, 3]


def test_a_condition_on_what_is_tuned_is_one_for_tries():
    study = tuned(where=["method != 'BIMP' or prune.cycles >= 2"])
    trials = [t for t in make_trials(study) if t.values["method"] == "BIMP"]
    assert {t.values["prune.cycles"] for t in trials} == {2, 3} and len(trials) == 2 * 4 * 2


def test_a_small_space_has_fewer_tries():
    study = tuned(tune={"tries": 9, "space": {"prune.allocation": {"choice": ["global", "erk"]}}})
    assert len(make_trials(study)) == 4 * 2


def test_cases_of_one_name_that_are_not_the_same_are_refused():
    spaces = [{"way": {"cases": {"one": {"prune.sparsity": s}}}} for s in (0.8, 0.9)]
    (said,) = mistakes(search={"spaces": spaces})
    assert said.startswith("search: two trials are way=one, and are not the same")
    apart = [{**space, "retrain.epochs": {"grid": [n]}} for n, space in enumerate(spaces, start=1)]
    assert len(trials_of(search={"spaces": apart})) == 2


def test_a_field_inside_of_a_case_leaves_the_case_as_it_is():
    cases = {"STR": {"dense.sparsify": {"method": "str"}}}
    space = {"way": {"cases": cases}, "dense.sparsify.theta_decay": {"choice": [0.1]}}
    study = Study.model_validate({"search": {"space": space}})
    (trial,) = make_trials(study)
    assert trial.experiment.dense.sparsify.theta_decay == 0.1
    assert study.search.space["way"].cases == cases


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"seeds": []}, r"tune reports what it chose on search.seeds, which is empty"),
        ({"seeds": [100, 7]}, r"tune.seeds and seeds share 100"),
        ({"tune": {"seeds": []}}, r"tune.seeds is empty"),
        ({"tune": {"seeds": [9]}}, r"tune has nothing to draw"),
        ({"num_samples": 3}, r"num_samples 3 and tune do not go together.*tune.tries"),
        ({"within_dense": 0.01}, r"within_dense 0.01 and tune do not go together"),
        ({"scheduler": "asha"}, r"scheduler asha and tune do not go together"),
        ({"algorithm": "random"}, r"algorithm random and tune do not go together"),
        ({"space": {"optim.lr": {"uniform": [0, 1]}}}, r"space.optim.lr: under tune, space lists"),
        (
            {"tune": TUNED["tune"] | {"spaces": {"BIMB": {"optim.lr": {"uniform": [0.1, 1]}}}}},
            r"tune.spaces.BIMB: no case has that name. Did you mean BIMP\?",
        ),
        (
            {"tune": {"space": {"prune.sparsity": {"uniform": [0.8, 0.9]}}}},
            r"tune.space.prune.sparsity: is compared in search.space",
        ),
        (
            {"tune": TUNED["tune"] | {"space": {"optim.lr": {"grid": [0.1, 1]}}}},
            r"tune.space.optim.lr: what is tuned is drawn",
        ),
        (
            {"tune": {"space": {"optim.lr": {"uniform": [0.1, 1], "when": "metod == 'GMP'"}}}},
            r"tune.space.optim.lr.when .*: no field or dimension me",
        ),
    ],
)
def test_what_a_study_that_tunes_may_not_say(search, said):
    with pytest.raises(ValueError) as caught:
        tuned(**search)
    assert re.search(said, str(caught.value)), caught.value


def test_a_tuned_field_that_there_is_not_is_told_with_its_neighbour():
    with pytest.raises(ConfigError, match=r"optim\.lrr"):
        make_trials(tuned(tune={"space": {"optim.lrr": {"uniform": [0.1, 1]}}}))
