"""What a study found: one HTML page, its charts as PNG, one sentence and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rayprune.report.sentence import answer, answer_of, epochs_of, summary_row, summary_table
from rayprune.report.settings import Results, best_trial
from rayprune.results import (
    plots_folder,
    read_bytes,
    read_table,
    report_file,
    study_file,
    write_bytes,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["answer", "best_trial", "print_summary", "summary_table", "write_report"]

MOST_LINES = 20  # of the table in a terminal


def write_report(folder: str | Path) -> str:
    """Write report.html and plots/*.png beside a study's results; returns the page's location.

    `folder` is the study's folder or a URI of it. Raises ``ValueError`` where it holds no results
    of ours, ``StorageError`` where the files cannot be written.
    """
    # Altair is slow to import and only charts need it.
    from rayprune.report.charts import make_plots
    from rayprune.report.page import render_page

    place = _location(folder)
    results = Results.from_table(read_table(place)[0])
    study = read_bytes(study_file(place)) or b""
    plots = make_plots(results)
    write_bytes(
        report_file(place), render_page(results, plots, study.decode(errors="replace")).encode()
    )
    for plot in plots:
        write_bytes(f"{plots_folder(place)}/{plot.name}.png", plot.png())
    return report_file(place)


def print_summary(console: Console, folder: str | Path) -> None:
    """The answer, the table of settings and what the study cost, for a terminal or a job's log.

    Raises ``ValueError`` where the folder holds no results of ours.
    """
    from rich.markup import escape
    from rich.table import Table

    results = Results.from_table(read_table(_location(folder))[0])
    rows = [summary_row(results, setting) for setting in results.settings]
    if rows:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(rows[0]):
            shown.add_column(column, justify="right" if number else "left")
        for row in rows[:MOST_LINES]:
            shown.add_row(*map(escape, row.values()))
        console.print(shown)
    if len(rows) > MOST_LINES:
        console.print(f"… and {len(rows) - MOST_LINES} more in the report")
    for trial, message in results.failed.items():
        console.print(f"trial {trial} failed: {message}", markup=False, style="red")
    console.print(answer_of(results), markup=False, style="bold")
    console.print(epochs_of(results))


def _location(folder: str | Path) -> str:
    return folder if isinstance(folder, str) and "://" in folder else str(Path(folder).resolve())
