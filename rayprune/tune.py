"""Run a study: python -m rayprune.tune [STUDY] [field.path=value ...] [--dry-run] [--local]

STUDY is a YAML file, or the name of a shipped study; without it, the quickstart runs. --force
replaces the table of another study of the same name.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rayprune.config import load_study

if TYPE_CHECKING:
    from rayprune.api import Results
    from rayprune.config import Study


INTERRUPTED, TERMINATED = 130, 143  # what a shell says of a command that a signal ended


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m rayprune.tune") -> int:
    """Return 0, 1 if a trial failed or is unfinished, 2 for invalid input, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(prog).parse_intermixed_args(arguments)
    words = list(options.words)
    path = words.pop(0) if words and "=" not in words[0] else None
    prepare_process()
    try:
        study = load_study(path, words)
    except ValueError as error:
        return complain(error)
    if options.dry_run:
        return dry_run(study, ray=not options.local, force=options.force)
    command = f"{prog} {shlex.join(arguments)}".strip()
    return run_and_print(study, command, ray=not options.local, force=options.force)


def dry_run(study: Study, *, ray: bool = True, force: bool = False) -> int:
    """Print trials, stages and epochs; start nothing. Return 0, or 2 for invalid input."""
    from rayprune.api import without_ray
    from rayprune.checks import check, check_folder
    from rayprune.console import open_console
    from rayprune.console.dry_run import print_plan, print_search
    from rayprune.trials import make_trials

    study = study if ray else without_ray(study)
    try:
        trials = make_trials(study)
        check(study, trials, ray=ray)
        if study.search.algorithm.is_listed:
            print_plan(open_console(), study, trials)
        else:
            print_search(open_console(), study)
        if not force:
            check_folder(study, trials)
    except ValueError as error:
        return complain(error)
    return 0


def run_and_print(study: Study, command: str, *, ray: bool, force: bool = False) -> int:
    """Run a study, show its progress, write the report and print what came out.

    `command` is what the user wrote, to be written again.
    """
    with sigterm_as_ctrl_c() as terminated:
        try:
            return _run_and_print(study, ray=ray, force=force)
        except ValueError as error:
            return complain(error)
        except OSError as error:
            return complain(error, 1)
        except (KeyboardInterrupt, SystemExit) as stop:
            # While Ray starts, SIGTERM is its own, and is a SystemExit with the signal's number.
            if isinstance(stop, SystemExit) and stop.code != signal.SIGTERM:
                raise
            after_c = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
            print(f"{after_c}interrupted; to go on from here: {command}", file=sys.stderr)
            is_term = terminated.is_set() or isinstance(stop, SystemExit)
            return TERMINATED if is_term else INTERRUPTED


def _run_and_print(study: Study, *, ray: bool, force: bool) -> int:
    from rayprune.api import is_first_rank, run, without_ray
    from rayprune.console import open_console
    from rayprune.console.progress import ProgressView
    from rayprune.console.summary import print_files, print_summary
    from rayprune.trials import make_trials, num_proposed, num_reports

    study = study if ray else without_ray(study)
    console = open_console(quiet=not (ray or is_first_rank()))
    with ExitStack() as stack:
        trials = make_trials(study)
        expected = len(trials) + num_reports(study) or num_proposed(study)
        view = ProgressView(console, trials, study.search.metrics[0], expected)
        stack.enter_context(view)

        def show(results: Results) -> None:  # before Ray ends, which may take a while, or fail
            stack.close()
            _write_report(results)
            print_summary(console, results.comparison)
            print_files(console, results.folder)

        results = run(study, ray=ray, force=force, on_progress=view, on_results=show)
    return 1 if results.errors else 0


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[threading.Event]:
    """SIGTERM, as ``ray job stop`` sends it, ends a study as Ctrl-C does, and sets the event."""
    terminated = threading.Event()

    def stop(number: int, frame: object) -> None:
        terminated.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield terminated  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


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
