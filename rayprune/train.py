"""Run one experiment: python -m rayprune.train EXPERIMENT [field.path=value ...] [--local]

EXPERIMENT is a YAML file of a study or of an experiment alone; its search is left out. --local runs
without Ray in this process; torchrun -m rayprune.train EXPERIMENT runs without Ray on its ranks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from rayprune.config.load import load_study_of_one
from rayprune.results.files import default_storage
from rayprune.trials import make_trials
from rayprune.tune import check, complain, run_study

if TYPE_CHECKING:
    from rayprune.config import Study
    from rayprune.trials import TrialPlan


def main(arguments: Sequence[str] | None = None) -> int:
    """The door's exit code: 0, 1 when the experiment failed, 2 for a mistake in what was asked."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        study = load_study_of_one(options.experiment, options.overrides)
        (trial,) = make_trials(study)
        check(study, [trial])
    except ValueError as error:
        return complain(error)
    if options.local or "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's ranks are a group already
        return _run_local(study, trial)
    return run_study(study, [trial], Console())


def _run_local(study: Study, trial: TrialPlan) -> int:
    """The same stages and the same files without Ray, in this process or on torchrun's ranks."""
    from rayprune.console.finish import finish
    from rayprune.results.outcome import Outcome, write_outcome, write_study
    from rayprune.training.run import run_plan
    from rayprune.training.stage import EpochReport
    from rayprune.training.worker import local_worker, prepare_process

    console = Console()
    executed: list[str] = []  # key of the stage of each epoch

    def on_epoch(report: EpochReport) -> bool:
        executed.append(report.stage.key)
        metrics = " ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
        stage = report.stage
        console.print(
            f"stage {stage.index} epoch {report.epochs_done}/{stage.epochs}: {metrics}",
            highlight=False,
        )
        return True

    storage = default_storage(study)
    prepare_process(study.scaling.cpus_per_worker)
    try:
        with local_worker() as worker:
            snapshot = run_plan(trial.experiment, worker, storage, on_epoch=on_epoch)
            if not worker.is_first:
                return 0
        write_study(study, storage)
        outcome = Outcome(
            study,
            (trial,),
            storage,
            finished={trial.name: snapshot.records},
            errors={},
            executed_by=dict.fromkeys(executed, trial.name),
            executed_epochs=len(executed),
        )
        write_outcome(outcome)
        return finish(outcome, console)
    except (ValueError, OSError) as error:
        return complain(error, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rayprune.train", description="Train, prune and retrain one model."
    )
    parser.add_argument("experiment", help="a YAML file, or a shipped study's name")
    parser.add_argument("overrides", nargs="*", metavar="field.path=value")
    parser.add_argument(
        "--local", action="store_true", help="without Ray, in this process; torchrun needs no flag"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
