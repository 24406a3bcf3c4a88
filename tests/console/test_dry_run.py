"""What would be run: inputs, what is shared, what was finished before."""

import io
import re

import pytest
from rich.console import Console

from rayprune.config import Study
from rayprune.console.dry_run import print_plan, print_search
from rayprune.results.recorder import Recorder
from rayprune.trials import make_trials


def shown(**fields):
    study = Study.model_validate({"storage": "/nowhere", **fields})
    console = Console(file=io.StringIO(), width=200)
    print_plan(console, study, make_trials(study))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_rewinding_shows_where_the_dense_run_is_cut_and_what_is_shared():
    cases = {
        "plain": {"retrain.epochs": 2},
        "rewind": {"prune.rewind.epoch": 3},
        "lottery": {"prune.rewind.epoch": 0},
    }
    lines = shown(
        experiment={"dense": {"epochs": 8}, "prune": {"sparsity": 0.9}},
        search={"space": {"way": {"cases": cases}}},
    )
    assert lines[1:4] == [
        "0 plain dense to epoch 3 → dense 8 → 90.0% allr 2",
        "1 rewind (dense to epoch 3) → (dense 8) → 90.0%, rewound lrw 5",
        "2 lottery (dense to epoch 3) → (dense 8) → 90.0%, rewound lrw 8",
    ]
    assert lines[-1] == "23 epochs to run of 23 unique ones; separate runs would take 39"


def test_a_study_that_tunes_shows_its_tries_and_what_follows():
    search = {
        "space": {"retrain.epochs": {"grid": [1, 3]}},
        "tune": {"tries": 2, "space": {"optim.lr": {"log_uniform": [0.01, 0.1]}}},
        "seeds": [0, 1, 2],
    }
    lines = shown(experiment={"dense": {"epochs": 8}}, search=search)
    assert [lines[0], lines[1], lines[3]] == [
        "trial retrain.epochs seed tried stages: epochs and sparsity",
        "0 1 100 lr=0.1 dense 8 → 95.0% allr 1",
        "2 3 100 lr=0.1 (dense 8) → 95.0% allr 3",
    ]
    assert lines[-1] == (
        "then the best try of each of 2 settings, by val_accuracy on the seeds of tuning, runs on "
        "the seeds 0, 1, 2: 6 trials of 9 to 11 epochs"
    )


BROUGHT = {
    "model": {"name": "small_cnn", "weights": "net.pt"},
    "optim": {"lr": 0.1},
    "prune": {"sparsity": 0.9},
}
D1_ALONE = "ALLR goes by d1 alone: dense.trained_epochs is not given"


def brought(schedules=("ft", "allr"), **dense):
    experiment = BROUGHT | {"dense": {"epochs": 0, "smallest_lr": 0.001, **dense}}
    return experiment, {"space": {"retrain.schedule": {"grid": list(schedules)}}}


def test_a_network_that_was_brought_is_taken_as_it_is_and_costs_no_epoch():
    experiment, search = brought(trained_epochs=12)
    lines = shown(experiment=experiment, search=search)
    assert lines[1:3] == [
        "0 ft dense as it is → 90.0% ft 2",
        "1 allr (dense as it is) → 90.0% allr 2",
    ]
    assert lines[-1] == "4 epochs to run of 4 unique ones; separate runs would take 4"


@pytest.mark.parametrize("schedules", [["ft", "allr"], ["ft"]])
@pytest.mark.parametrize("trained_epochs", [None, 12])
def test_what_allr_has_to_do_without_is_said_once(schedules, trained_epochs):
    experiment, search = brought(schedules, trained_epochs=trained_epochs)
    lines = shown(experiment=experiment, search=search)
    assert lines.count(D1_ALONE) == (trained_epochs is None and "allr" in schedules)
    space = {"retrain.schedule": {"choice": schedules}, "optim.lr": {"uniform": [0.1, 0.2]}}
    search = {"algorithm": "optuna", "num_samples": 20, "space": space}
    study = Study.model_validate(
        {"storage": "/nowhere", "experiment": experiment, "search": search}
    )
    assert said_of(study).count(D1_ALONE) == (trained_epochs is None and "allr" in schedules)


def searched(tmp_path=None, **search):
    space = {
        "retrain.schedule": {"choice": ["allr", "linear"]},
        "retrain.epochs": {"integers": [1, 4]},
        "retrain.lr": {"log_uniform": [0.01, 0.1], "when": "retrain.schedule == 'linear'"},
        "dense.epochs": {"equals": "10 - retrain.epochs"},
    }
    fields = {"algorithm": "optuna", "num_samples": 20, "space": space, **search}
    return Study.model_validate({"storage": str(tmp_path or "/nowhere"), "search": fields})


def said_of(study, width=200):
    console = Console(file=io.StringIO(), width=width)
    print_search(console, study)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_a_searchers_study_shows_what_is_searched_and_a_trial_of_it():
    asha = {"name": "asha", "grace_period": 2}
    lines = said_of(searched(scheduler=asha, where=["retrain.epochs < 4"]))
    assert lines[:9] == [
        "searched values only where",
        "retrain.schedule allr, linear",
        "retrain.epochs 1 to 4, whole",
        "retrain.lr 0.01 to 0.1, logarithmic retrain.schedule == 'linear'",
        "dense.epochs = 10 - retrain.epochs",
        "optuna proposes 20 trials",
        "goal: val_accuracy (max)",
        "stopped early: by asha (in epochs of retraining, grace_period=2)",
        "condition: retrain.epochs < 4; a trial that breaks it is infeasible, and learned from",
    ]
    example, numbers = lines[9:]
    found = re.fullmatch(
        r"for example: schedule=(\w+), retrain.epochs=(\d)(?:, lr=0.0\d+)?, "
        r"dense.epochs=(\d): dense (\d) → 95.0% (\w+) (\d)",
        example,
    )
    schedule, retrain, dense, *stages = found.groups()
    assert stages == [dense, schedule, retrain] and int(dense) + int(retrain) == 10
    good, drawn, unique, naive = map(
        int,
        re.fullmatch(
            r"(\d+) of (\d+) trials drawn at random can be run: 10 epochs each, (\d+) unique ones "
            r"in all; separate runs would take (\d+)",
            numbers,
        ).groups(),
    )
    assert 0 < good < drawn <= 20, "what the condition excludes is drawn, too"
    assert naive == 10 * good and unique < naive, "dense runs are shared"


def test_a_searchers_goals_and_seeds_are_said():
    lines = said_of(searched(metric=["val_accuracy", "num_nonzero"], seeds=[0, 1]))
    assert "optuna proposes 40 trials (20 points with 2 seeds each)" in lines
    assert "goal: val_accuracy (max), num_nonzero (min)" in lines
    assert "40 trials drawn at random" in lines[-1]
    lines = said_of(searched(within_dense=0.02))
    assert "goal: the sparsest that loses at most 0.02 of val_accuracy" in lines


def test_options_of_a_searched_field_are_shown_as_they_are():
    space = {"prune.ignore": {"choice": [["conv1"], []]}, "optim.lr": {"uniform": [0.05, 0.5]}}
    lines = said_of(searched(space=space))
    assert lines[:3] == [
        "searched values",
        "prune.ignore ['conv1'], []",
        "optim.lr 0.05 to 0.5",
    ]


def test_an_example_is_found_where_a_condition_excludes_nearly_all():
    space = {"optim.lr": {"uniform": [0, 1]}, "retrain.epochs": {"grid": [1]}}
    lines = said_of(searched(space=space, where=["optim.lr > 0.98"], num_samples=5))
    assert lines[-1].startswith("0 of 5 trials drawn at random can be run")
    assert re.match(r"for example: lr=(0.9[89]\d*|1), epochs=1: dense 12", lines[-2])


def test_what_a_searcher_has_proposed_before_is_counted(tmp_path):
    study = searched(tmp_path)
    recorder = Recorder(study, ())
    for epochs in (1, 2, 3):
        recorder.propose({"retrain.schedule": "allr", "retrain.epochs": epochs}, None)
    assert "optuna proposes 20 trials, 3 of them before this start" in said_of(study)


def test_what_is_measured_at_the_end_is_told():
    space = {"retrain.epochs": {"grid": [1, 2]}}
    search = {"space": space, "seeds": [0, 1], "measure": {"runtime": "mnn", "threads": 2}}
    assert shown(search=search)[-1] == (
        "measured at the end: 4 networks in mnn, 2 threads, batch 1, and 2 dense ones"
    )
    limited = {**search, "within": {"latency_ms": 5, "file_mb": 0.5}}
    assert shown(search=limited)[-1] == (
        "best is the best metric with latency_ms <= 5 and file_mb <= 0.5"
    )
    sparsest = shown(search={**limited, "within_dense": 0.01})[-1]
    assert (
        sparsest == "best is the sparsest within the loss with latency_ms <= 5 and file_mb <= 0.5"
    )
    dense = {"prune": {"cycles": 0, "sparsity": 0}}
    assert shown(experiment=dense, search={"measure": "onnx"})[-1] == (
        "measured at the end: 1 network in onnx, 1 thread, batch 1"
    )


def test_of_trials_that_are_not_known_yet_as_many_as_there_may_be():
    tune = {"tries": 2, "space": {"optim.lr": {"log_uniform": [0.01, 0.1]}}}
    space = {"retrain.epochs": {"grid": [1, 3]}}
    search = {"space": space, "tune": tune, "seeds": [0, 1, 2], "measure": "mnn"}
    assert shown(search=search)[-1] == (
        "measured at the end: 6 networks in mnn, 1 thread, batch 1, and dense ones"
    )
    space = {"optim.lr": {"log_uniform": [0.01, 0.1]}}
    search = {"algorithm": "optuna", "num_samples": 5, "space": space, "measure": "mnn"}
    console = Console(file=io.StringIO(), width=200)
    print_search(console, Study.model_validate({"storage": "/nowhere", "search": search}))
    assert "measured at the end: 5 networks in mnn, 1 thread" in console.file.getvalue()
