"""What people see: every trial once, the epochs as they are, and nothing that confuses."""

import io
from dataclasses import replace

import pytest
from counted import Counted
from rich.console import Console

from rayprune.config import Experiment, Study, load_study
from rayprune.console.progress import SHOWN_TRIALS, ProgressView
from rayprune.plan import make_plan
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.trials import make_trials

DONE = StageProgress("done", 1, {"val_accuracy": 0.8125})


def shown(all_progress, *, terminal=False, study=None):
    trials = make_trials(study or load_study("quickstart"))
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    with ProgressView(console, trials, "val_accuracy") as view:
        for progress in all_progress(trials):
            view(progress)
    return file.getvalue()


def stages(trials, **changes):
    """Everything wanted, but the dense run done and what `changes` says of last stages."""
    dense = trials[0].plan[0].key
    known = {dense: StageProgress("done", 12, {"val_accuracy": 0.9})}
    return known | {trials[int(n[1:])].plan[-1].key: state for n, state in changes.items()}


def test_every_trial_that_ends_is_told_once():
    def all_progress(trials):
        failed = StageProgress("failed", error="it diverged")
        gone = {"02": TrialStatus(name="02", status="stopped", reason="worse than others")}
        for _ in range(3):
            known = stages(trials, t0=DONE, t1=failed)
            yield StudyProgress(known, given_up=gone, executed_epochs=13)

    lines = shown(all_progress).splitlines()
    for told in (
        "trial 00 schedule=ft epochs=1: val_accuracy 0.8125",
        "trial 01 schedule=ft epochs=3: failed: it diverged",
        "trial 02 schedule=lrw epochs=1: stopped: worse than others",
    ):
        assert sum(told in line for line in lines) == 1, told
    assert any("3 of 12 trials · epochs: 13 of 36 done, 132 shared" in line for line in lines)


def test_a_log_has_no_escape_codes_and_a_terminal_has_a_table():
    def all_progress(trials):
        running = StageProgress("running", 1, {"val_accuracy": 0.7})
        yield StudyProgress(stages(trials, t1=running), executed_epochs=13)

    log, terminal = shown(all_progress), shown(all_progress, terminal=True)
    assert "\x1b" not in log
    assert "schedule=ft epochs=3" in terminal
    assert "cycle 1, 95.0% sparse" in terminal
    assert "1/3" in terminal


def test_a_single_trial_is_told_epoch_by_epoch():
    def all_progress(trials):
        dense, cycle = (stage.key for stage in trials[0].plan)
        for epoch in (1, 1, 2):
            running = StageProgress("running", epoch, {"val_accuracy": epoch / 10})
            yield StudyProgress({dense: running}, executed_epochs=epoch)
        done = StageProgress("done", 12, {"val_accuracy": 0.5})
        running = StageProgress("running", 1, {"val_accuracy": 0.4})
        yield StudyProgress({dense: done, cycle: running}, executed_epochs=13)

    lines = shown(all_progress, study=Study()).splitlines()
    assert [line for line in lines if "epoch " in line] == [
        "dense, epoch 1/12: val_accuracy 0.1000",
        "dense, epoch 2/12: val_accuracy 0.2000",
        "cycle 1, 95.0% sparse, epoch 1/2: val_accuracy 0.4000",
    ]


def test_a_study_that_was_finished_before_says_so_in_one_line():
    def all_progress(trials):
        states = {s.key: StageProgress("done", s.epochs) for t in trials for s in t.plan}
        yield StudyProgress(states)

    assert shown(all_progress) == "every trial was finished before: nothing is left to run\n"


def test_what_was_stopped_before_is_nothing_to_run_either():
    def all_progress(trials):
        states = {s.key: StageProgress("done", s.epochs) for t in trials[1:] for s in t.plan}
        yield StudyProgress(states, given_up={"00": TrialStatus(name="00", status="stopped")})

    said = "every trial was finished or stopped before: nothing is left to run\n"
    assert shown(all_progress) == said


def test_a_trial_that_was_lost_says_why():
    def all_progress(trials):
        gone = TrialStatus(name="05", status="unfinished", reason="its process died")
        yield StudyProgress({}, executed_epochs=1)
        yield StudyProgress({}, given_up={"05": gone}, executed_epochs=1, changed=())

    (line,) = [line for line in shown(all_progress).splitlines() if "trial 05" in line]
    assert line.endswith(": unfinished: its process died")


def test_a_trial_whose_result_was_lost_is_told_again():
    def all_progress(trials):
        last = trials[0].plan[-1].key
        for state in (DONE, StageProgress("wanted"), DONE):
            yield StudyProgress({last: state}, executed_epochs=1, changed=[last])

    assert shown(all_progress).count("trial 00 ") == 2


def test_running_trials_come_first_and_at_most_twenty_are_shown():
    """Of 100 trials the last two run, one of them in the dense run of its own."""
    space = {"batch_size": {"grid": [128, 64]}, "retrain.epochs": {"grid": [1]}}
    study = Study.model_validate({"search": {"space": space, "seeds": list(range(50))}})

    def all_progress(trials):
        dense, other = trials[-1].plan[0].key, trials[-2].plan
        stages = {dense: StageProgress("running", 4), other[0].key: StageProgress("done", 12)}
        stages[other[1].key] = StageProgress("running", 0)
        yield StudyProgress(stages, executed_epochs=16)

    lines = [line.split() for line in shown(all_progress, terminal=True, study=study).splitlines()]
    rows = [line for line in lines if line and line[0].isdigit()]
    assert [row[0] for row in rows[:20]] == ["99", "98", *(f"{n:02d}" for n in range(18))]
    assert "dense 4/12" in " ".join(rows[0])
    assert any(line[:3] == ["…", "80", "more"] for line in lines)


@pytest.mark.parametrize("num_seeds", [10, 300])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_change_costs_as_much_in_a_large_study_as_in_a_small_one(num_seeds, terminal):
    space = {"retrain.epochs": {"grid": [1, 2]}}
    search = {"space": space, "seeds": list(range(num_seeds))}
    trials = make_trials(Study.model_validate({"search": search}))
    running = StageProgress("running", 1)
    stages = Counted({stage.key: running for trial in trials for stage in trial.plan})
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None)
    view = ProgressView(console, trials, "val_accuracy")
    view(StudyProgress(stages))
    for epochs in range(1, 10):
        stages.asked = 0
        view(StudyProgress(stages, executed_epochs=epochs, changed=[trials[3].plan[0].key]))
        assert stages.asked <= 3 + (SHOWN_TRIALS if terminal else 0)


def test_trials_that_are_proposed_meanwhile_are_taken_in():
    """A searcher's: how many there will be is known from the beginning."""
    study = load_study("quickstart")
    one, two, *_ = make_trials(study)
    wrong = replace(two, name="02", plan=(), mistake="retrain.epochs is too long")
    file = io.StringIO()
    with ProgressView(Console(file=file, width=120), (), "val_accuracy", 5) as view:
        view(StudyProgress({}, trials=[]))
        view(StudyProgress({one.plan[0].key: StageProgress("running", 3)}, trials=[one]))
        both = {stage.key: DONE for trial in (one, two) for stage in trial.plan}
        view(StudyProgress(both, trials=[one, two, wrong], executed_epochs=16))
        view(StudyProgress(both, trials=[one, two, wrong], executed_epochs=16))
    told = [line for line in file.getvalue().splitlines() if " trial 0" in line]
    assert [line.partition("trial ")[2] for line in told] == [
        "02 schedule=ft epochs=3: infeasible: retrain.epochs is too long",
        "00 schedule=ft epochs=1: val_accuracy 0.8125",
        "01 schedule=ft epochs=3: val_accuracy 0.8125",
    ]
    assert "0 of 5 trials" in file.getvalue()
    assert "nothing is left to run" not in file.getvalue(), "more will be proposed"
    assert "epoch 3/12" not in file.getvalue(), "it is not the only one"


def test_stages_of_a_dense_run_in_parts_have_their_own_names():
    fields = {"prune": {"rewind": {"epoch": 3}, "sparsity": 0.9}}
    names = [stage.title for stage in make_plan(Experiment.model_validate(fields))]
    assert names == ["dense to epoch 3", "dense", "cycle 1, 90.0% sparse"]


def test_a_network_that_is_only_measured_has_no_epochs_to_count():
    experiment = {
        "model": {"name": "small_cnn", "weights": "net.pt"},
        "dense": {"epochs": 0, "trained_epochs": 12},
        "optim": {"lr": 0.1},
        "retrain": {"epochs": 3},
    }
    space = {"prune.sparsity": {"grid": [0.8, 0.9, 0.95]}}
    study = Study.model_validate({"experiment": experiment, "search": {"space": space}})

    def all_progress(trials):
        dense = trials[0].plan[0].key
        yield StudyProgress({dense: StageProgress("running")})
        known = {dense: StageProgress("done", 0, {"val_accuracy": 0.9})}
        yield StudyProgress(known)

    terminal = shown(all_progress, terminal=True, study=study)
    assert "0 of 3 trials · epochs: 0 of 9 done" in terminal
    assert "0/0" not in terminal and "0/3" in terminal
