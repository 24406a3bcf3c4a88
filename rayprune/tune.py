"""Run a study: python -m rayprune.tune [STUDY] [field.path=value ...] [--dry-run] [--local]

STUDY is a YAML file, or the name of a shipped study; without it, the quickstart runs. --force
replaces the table of another study of the same name.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rayprune.config import load_study

if TYPE_CHECKING:
    from rayprune.api import Results
    from rayprune.config import Study


INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m rayprune.tune") -> int:
    """Return 0, 1 if a trial failed or is unfinished, 2 for invalid input, 130 after Ctrl-C."""
    options = _parser(prog).parse_intermixed_args(arguments)
    words = list(options.words)
    path = words.pop(0) if words and "=" not in words[0] else None
    prepare_process()
    try:
        study = load_study(path, words)
    except ValueError as error:
        return complain(error)
    if options.dry_run:
        return dry_run(study, force=options.force)
    return run_and_print(study, ray=not options.local, force=options.force)


def dry_run(study: Study, *, force: bool = False) -> int:
    """Print trials, stages and epochs; start nothing. Return 0, or 2 for invalid input."""
    from rayprune.api import check, check_folder
    from rayprune.console import open_console
    from rayprune.console.dry_run import print_plan
    from rayprune.trials import make_trials

    try:
        trials = make_trials(study)
        check(study, trials)
        print_plan(open_console(), study, trials)
        if not force:
            check_folder(study, trials)
    except ValueError as error:
        return complain(error)
    return 0


def run_and_print(study: Study, *, ray: bool, force: bool = False) -> int:
    """Run a study, show its progress, write the report and print what came out."""
    from rayprune.api import is_first_rank, run
    from rayprune.console import open_console
    from rayprune.console.progress import ProgressView
    from rayprune.console.summary import print_files, print_summary
    from rayprune.trials import make_trials

    console = open_console(quiet=not (ray or is_first_rank()))
    try:
        with ProgressView(console, make_trials(study), study.search.metric) as view:
            results = run(study, ray=ray, force=force, on_progress=view)
        if ray or is_first_rank():
            _write_report(results)
            print_summary(console, results.comparison)
            print_files(console, results.folder)
        return 1 if results.errors else 0
    except ValueError as error:
        return complain(error)
    except OSError as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _write_report(results: Results) -> None:
    """Write the report, unless it lies there; where that fails, the results are there anyway."""
    from rayprune.api import has_report, write_report

    try:
        if results.best is not None and not has_report(results):
            write_report(results)
    except Exception as error:
        remedy = f"`python -m rayprune.report {results.folder}` writes it"
        print(f"warning: the report was not written: {error}; {remedy}", file=sys.stderr)


def prepare_process() -> None:
    """A user's own modules are found beside the study, as with ``python -m``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def complain(error: Exception, code: int = 2) -> int:
    """Print a mistake as lines on standard error; return the exit code."""
    for line in str(error).split("\n"):
        print(f"error: {line}", file=sys.stderr)
    return code


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add --force, which the commands that run something share."""
    parser.add_argument(
        "--force", action="store_true", help="replace the table of another study of this name"
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
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
    add_force(parser)
    parser.add_argument("--local", action="store_true", help="without Ray, in this process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
