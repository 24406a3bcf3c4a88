"""Export a trained network: python -m rayprune.export RUN --to FORMAT... [--measure]

RUN is a study's folder. Without --trial or --stage, the best trial's network is exported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rayprune.exporting.exported import FORMAT_NAMES, check_formats
from rayprune.tune import (
    INTERRUPTED,
    TERMINATED,
    complain,
    prepare_process,
    sigterm_as_ctrl_c,
)


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m rayprune.export") -> int:
    """Return 0, 1 where the files cannot be written, 2 for what cannot be exported."""
    options = _parser(prog).parse_args(arguments)
    prepare_process()
    with sigterm_as_ctrl_c() as terminated:
        try:
            return _export(options)
        except ValueError as error:
            return complain(error)
        except OSError as error:
            return complain(error, 1)
        except KeyboardInterrupt:
            print("interrupted: the same command exports all again", file=sys.stderr)
            return TERMINATED if terminated.is_set() else INTERRUPTED


def _export(options: argparse.Namespace) -> int:
    formats = [*dict.fromkeys(options.to), *(["int8"] if options.int8 else [])]
    check_formats(formats, (options.threads, options.batch) if options.measure else None)
    from rayprune.api import open_results
    from rayprune.console import open_console
    from rayprune.console.exports import print_exported

    results = open_results(options.run)
    console = open_console()
    exported = results.export(
        formats,
        trial=options.trial,
        stage=options.stage,
        measure=options.measure,
        threads=options.threads,
        batch=options.batch,
        folder=options.folder,
        say=lambda doing: console.print(f"{doing} …", style="dim", highlight=False),
    )
    print_exported(console, exported, results.comparison.summary.lower_is_better)
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Write a trained network as files for others, checked and described."
    )
    parser.add_argument("run", metavar="RUN", help="folder of a study: it holds results.parquet")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", metavar="NAME", help="a finished trial (default: the best one)")
    which.add_argument("--stage", metavar="KEY", help="a finished stage, by its key's beginning")
    parser.add_argument(
        "--to",
        nargs="+",
        default=[],
        metavar="FORMAT",
        help=", ".join(name for name in FORMAT_NAMES if name != "int8"),
    )
    parser.add_argument(
        "--int8", action="store_true", help="the ONNX file quantised to int8 as well"
    )
    parser.add_argument(
        "--measure", action="store_true", help="latencies, against the dense network"
    )
    parser.add_argument("--threads", type=int, default=1, help="of latencies (default: 1)")
    parser.add_argument(
        "--batch", type=int, default=8, help="samples of a pass, beside one alone (default: 8)"
    )
    parser.add_argument(
        "--folder", metavar="PLACE", help="where the files go (default: RUN/export/<which>)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
