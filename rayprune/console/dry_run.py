"""What a study would do: trials, stages, what is shared, epochs; nothing is started."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rayprune.config import Study
from rayprune.plan import Stage, count_epochs
from rayprune.results.files import default_storage
from rayprune.results.stages import finished_records
from rayprune.trials import TrialPlan


def print_plan(console: Console, study: Study, trials: Sequence[TrialPlan]) -> None:
    """A line for each trial, then the epochs with and without sharing."""
    storage = default_storage(study)
    wanted = [stage for trial in trials for stage in trial.plan]
    unique = {stage.key: stage for stage in wanted}
    done = {key for key in unique if finished_records(storage, key) is not None}
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", *trials[0].values, "stages: epochs and sparsity"):
        table.add_column(heading, overflow="fold")
    seen: set[str] = set(done)
    for trial in trials:
        stages = " → ".join(_describe(stage, shared=stage.key in seen) for stage in trial.plan)
        table.add_row(trial.name, *map(str, trial.values.values()), stages)
        seen |= {stage.key for stage in trial.plan}
    console.print(table)
    epochs = count_epochs(trial.plan for trial in trials)
    left = count_epochs([[stage for key, stage in unique.items() if key not in done]]).unique
    console.print(
        f"{len(trials)} trials, {len(wanted)} stages, {len(unique)} of them unique "
        f"(in brackets: shared with a trial above{' or finished before' if done else ''})"
    )
    console.print(
        f"{left} epochs to run of {epochs.unique} unique ones; "
        f"separate runs would take {epochs.naive}"
    )


def _describe(stage: Stage, *, shared: bool) -> str:
    if stage.is_dense:
        what = "dense to epoch" if stage.part_of else "dense"
        text = f"{what} {stage.last_epoch}"
    else:
        weights = stage.inputs.weights
        rewound = ", rewound" if weights != stage.inputs.masks else ""
        text = f"{stage.sparsity:.1%}{rewound} {stage.schedule} {stage.epochs}"
    return f"({text})" if shared else text
