"""What people see: every trial once, the epochs as they are, and nothing that confuses."""

import io

from rich.console import Console

from rayprune.config.load import load_study
from rayprune.console.progress import Display, WithoutWorkerCounts
from rayprune.distributed.actor import View
from rayprune.distributed.ledger import StageState
from rayprune.trials import make_trials


def shown(views, *, terminal=False):
    study = load_study("quickstart")
    trials = make_trials(study)
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    with Display(console, trials, "val_accuracy") as display:
        for view in views(trials):
            display(view)
    return file.getvalue()


def states(trials, **changes):
    """Everything wanted, but the dense run done and what `changes` says of last stages."""
    dense = trials[0].plan[0].key
    known = {dense: StageState("done", 12, {"val_accuracy": 0.9})}
    return known | {trials[int(n[1:])].plan[-1].key: state for n, state in changes.items()}


def test_every_trial_that_ends_is_told_once():
    def views(trials):
        done = StageState("done", 1, {"val_accuracy": 0.8125})
        failed = StageState("failed", error="it diverged")
        for _ in range(3):
            yield View(states(trials, t0=done, t1=failed), {}, 13)

    lines = shown(views).splitlines()
    assert sum("trial 00 schedule=ft epochs=1: val_accuracy 0.8125" in line for line in lines) == 1
    assert sum("trial 01 schedule=ft epochs=3: failed: it diverged" in line for line in lines) == 1
    assert any("2 of 12 trials · epochs: 13 of 36 done, 132 shared" in line for line in lines)


def test_a_log_has_no_escape_codes_and_a_terminal_has_a_table():
    def views(trials):
        running = StageState("running", 1, {"val_accuracy": 0.7})
        yield View(states(trials, t1=running), {0: trials[1].plan[-1]}, 13)

    log, terminal = shown(views), shown(views, terminal=True)
    assert "\x1b" not in log
    assert "schedule=ft epochs=3" in terminal
    assert "cycle 1, 95.0% sparse" in terminal
    assert "1/3" in terminal


def test_only_the_count_of_processes_is_kept_back():
    file = io.StringIO()
    stream = WithoutWorkerCounts(file)
    print("(raylet) WARNING: 8 PYTHON worker processes have been started on node", file=stream)
    print("(autoscaler) no node type can hold {'GPU': 3}", file=stream)
    assert file.getvalue() == "(autoscaler) no node type can hold {'GPU': 3}\n"
