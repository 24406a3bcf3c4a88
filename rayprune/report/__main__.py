"""Write the report of a study again: python -m rayprune.report FOLDER"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rayprune.api import open_results, write_report
from rayprune.console import open_console
from rayprune.console.summary import print_summary


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m rayprune.report") -> int:
    """Return 0, or 2 with a message where the folder holds no results."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write report.html and plots/ beside a study's results, and print its table.",
    )
    parser.add_argument("folder", help="folder of a study: it holds results.parquet")
    folder = parser.parse_args(arguments).folder
    try:
        results = open_results(folder)
        page = write_report(results)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_summary(open_console(), results.comparison)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
