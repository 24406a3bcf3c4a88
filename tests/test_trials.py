"""Every point of a search space is a checked experiment, in a fixed order."""

import re

import pytest

from rayprune.config import ConfigError, Study, load_study
from rayprune.config.load import shipped_studies
from rayprune.plan import count_epochs
from rayprune.trials import make_trials


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


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_loads_and_opens_with_its_command_and_cost(name):
    trials = make_trials(load_study(name))
    heading = shipped_studies()[name].read_text().split("experiment:\n")[0].replace(",", "")
    assert f"python -m rayprune.tune {name}" in heading or name == "quickstart"
    assert int(re.search(r"Expected: (\d+) trials", heading)[1]) == len(trials)
    epochs = count_epochs([trial.plan for trial in trials])
    said = re.search(r"(\d+) epochs instead of (\d+)", heading.split("Expected:")[1])
    assert [int(number) for number in said.groups()] == [epochs.unique, epochs.naive]
    assert "Cost:" in heading


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
