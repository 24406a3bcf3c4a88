"""Run one experiment: python -m rayprune.train EXPERIMENT [field.path=value ...] [--local]

EXPERIMENT is a YAML file of a study or of an experiment alone; its search is left out. --local runs
without Ray in this process; torchrun -m rayprune.train EXPERIMENT runs without Ray on its ranks.
--force replaces the table of another study of the same name.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from rayprune.config.load import load_study_of_one
from rayprune.tune import add_force, complain, prepare_process, run_and_print


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m rayprune.train") -> int:
    """Return 0, 1 if the experiment failed, 2 for invalid input, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(prog).parse_intermixed_args(arguments)
    prepare_process()
    try:
        study = load_study_of_one(options.experiment, options.overrides)
    except ValueError as error:
        return complain(error)
    # torchrun's ranks are a group already.
    ray = not options.local and "TORCHELASTIC_RUN_ID" not in os.environ
    command = f"{prog} {shlex.join(arguments)}"
    return run_and_print(study, command, ray=ray, force=options.force)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Train, prune and retrain one model.")
    parser.add_argument("experiment", help="a YAML file, or a shipped study's name")
    parser.add_argument("overrides", nargs="*", metavar="field.path=value")
    add_force(parser)
    parser.add_argument(
        "--local", action="store_true", help="without Ray, in this process; torchrun needs no flag"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
