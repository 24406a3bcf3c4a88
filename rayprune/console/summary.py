"""The summary of a study for a terminal or a job's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayprune.report.sentence import answer_of, epochs_of, summary_row
from rayprune.results.comparison import read_results

MOST_LINES = 20  # rows of the table
LEAST_WIDTH = 12  # letters of a setting's name in a line


def print_summary(console: Console, folder: str | Path) -> None:
    """The answer, the table of settings and what the study cost, for a terminal or a job's log.

    Raises ``ValueError`` where the folder holds no results of ours.
    """
    results = read_results(folder)
    rows = [summary_row(results, setting) for setting in results.settings]
    if len({row["seeds"] for row in rows}) == 1:  # the answer says it
        rows = [{name: text for name, text in row.items() if name != "seeds"} for row in rows]
    console.print(_terminal_table(rows[:MOST_LINES], console.width))
    if len(rows) > MOST_LINES:
        console.print(f"… and {len(rows) - MOST_LINES} more in the report")
    for trial, message in results.errors.items():
        console.print(f"trial {trial} failed: {message}", markup=False, style="red")
    console.print(answer_of(results), markup=False, style="bold", soft_wrap=True)
    console.print(epochs_of(results), soft_wrap=True)


def _terminal_table(rows: Sequence[Mapping[str, str]], width: int) -> Table:
    """Where the terminal is narrow, names and headings wrap and numbers stay whole."""
    columns = list(rows[0]) if rows else []
    whole = [max([len(c), *(len(row[c]) for row in rows)]) for c in columns]
    gap, widths = 2, whole
    if sum(whole) + gap * len(whole) > width:
        numbers = [max([*map(len, c.split()), *(len(row[c]) for row in rows)]) for c in columns[1:]]
        room = width - sum(numbers)
        gap = 2 if room - 2 * len(columns) >= LEAST_WIDTH else 1
        widths = [max(LEAST_WIDTH, min(whole[0], room - gap * len(columns))), *numbers]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for column, fitted in zip(columns, widths, strict=True):
        table.add_column(column, justify="right" if table.columns else "left", width=fitted)
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table
