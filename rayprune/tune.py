"""Run a study: python -m rayprune.tune [STUDY] [field.path=value ...] [--dry-run]

STUDY is a YAML file, or the name of a shipped study; without it, the quickstart runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from rayprune.config.load import load_study
from rayprune.trials import make_trials

if TYPE_CHECKING:
    from rayprune.config import Study
    from rayprune.trials import TrialPlan


def main(arguments: Sequence[str] | None = None) -> int:
    """The door's exit code: 0, 1 when trials failed, 2 for a mistake in what was asked."""
    options = _parser().parse_intermixed_args(arguments)
    words = list(options.words)
    path = words.pop(0) if words and "=" not in words[0] else None
    console = Console()
    try:
        study = load_study(path, words)
        trials = make_trials(study)
        check(study, trials)
    except ValueError as error:
        return complain(error)
    if options.dry_run:
        from rayprune.console.dry_run import print_plan

        print_plan(console, study, trials)
        return 0
    return run_study(study, trials, console)


def run_study(study: Study, trials: Sequence[TrialPlan], console: Console) -> int:
    """Search, write best model and report, and print what came out; gives the exit code."""
    # Ray and torch are seconds of import: not for --help, --dry-run or a mistake.
    from rayprune.console.finish import finish
    from rayprune.console.progress import Display
    from rayprune.distributed.search import search

    try:
        with Display(console, trials, study.search.metric) as display:
            outcome = search(study, trials, show=display)
        return finish(outcome, console)
    except OSError as error:
        return complain(error, 1)


def check(study: Study, trials: Sequence[TrialPlan]) -> None:
    """What can be known before any GPU is taken. Raises ``ValueError``."""
    from rayprune.data import check_data
    from rayprune.distributed.scaling import check_scaling
    from rayprune.models import check_model

    check_scaling(study.scaling)
    seen = {t.experiment.data.model_dump_json(): t.experiment.data for t in trials}
    for data in seen.values():
        check_data(data)
    for model in {
        t.experiment.model.model_dump_json(): t.experiment.model for t in trials
    }.values():
        check_model(model.name, target=model.target, weights=model.weights)


def complain(error: Exception, code: int = 2) -> int:
    """Print a mistake as lines on standard error; gives the exit code."""
    for line in str(error).split("\n"):
        print(f"error: {line}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rayprune.tune",
        description="Search pruning and retraining settings; stages that trials share run once.",
        epilog="Overrides are paths from the root of the file: experiment.retrain.epochs=1",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="STUDY field.path=value",
        help="a YAML file or a shipped study's name (default: quickstart), then overrides",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print trials, stages and epochs; start nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
