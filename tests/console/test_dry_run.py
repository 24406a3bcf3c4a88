"""What would be run: inputs, what is shared, what was finished before."""

import io

from rich.console import Console

from rayprune.config import Study
from rayprune.console.dry_run import print_plan
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
