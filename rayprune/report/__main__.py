"""The door: ``python -m rayprune.report FOLDER`` writes the report of a study again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from rayprune.report import print_summary, write_report
from rayprune.results.storage import StorageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with a message where the folder holds no results."""
    parser = argparse.ArgumentParser(
        prog="python -m rayprune.report",
        description="Write report.html and plots/ beside a study's results, and print its table.",
    )
    parser.add_argument("folder", help="folder of a study: it holds results.parquet")
    folder = parser.parse_args(arguments).folder
    try:
        page = write_report(folder)
        print_summary(Console(), folder)
    except (ValueError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
