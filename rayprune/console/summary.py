"""The summary of a study for a terminal or a job's log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayprune.report.answer import answer, d1_alone, epochs_sentence, without_result
from rayprune.report.columns import Column, summary_columns, summary_rows
from rayprune.report.deployed import dense_measured
from rayprune.results.comparison import Comparison
from rayprune.results.files import (
    best_folder,
    dense_folder,
    provenance_file,
    report_file,
    table_file,
)
from rayprune.results.outcome import Status
from rayprune.results.setting import Setting
from rayprune.results.storage import StorageError, modified

GAP = 2  # spaces between columns
LEAST_WIDTH = 12  # letters of a setting's name in a line
STYLES: dict[Status, str] = {
    "failed": "red",
    "infeasible": "",
    "stopped": "",
    "unfinished": "yellow",
}


def print_summary(console: Console, comparison: Comparison) -> None:
    """Print the table of settings, trials without a result, the answer and what the study cost.

    In a log no line is wrapped: a job's log has no width.
    """
    _print_settings(console, comparison)
    for status, style in STYLES.items():
        for who, why in without_result(comparison, status):
            _print(console, f"{who}: {why}" if why else who, style=style)
    for row in comparison.finals:
        if emptied := row.get("emptied_layers"):
            warning = (
                f"warning: trial {row['trial']} removed every weight of {emptied}. "
                "prune.allocation uniform or erk leaves some in each layer, prune.ignore all"
            )
            _print(console, warning, style="yellow")
    _print(console, answer(comparison), style="bold")
    if dense := dense_measured(comparison):
        _print(console, dense)
    _print(console, epochs_sentence(comparison))
    if note := d1_alone(comparison):
        _print(console, note)


def print_files(console: Console, folder: str) -> None:
    """Where the report, the table and the model to ship lie, as far as they have been written."""
    places = {
        "report": (report_file(folder), report_file(folder)),
        "table": (table_file(folder), table_file(folder)),
        "best model": (best_folder(folder), provenance_file(best_folder(folder))),
        "dense model": (dense_folder(folder), provenance_file(dense_folder(folder))),
    }
    for what, (place, written) in places.items():
        if _is_there(written):
            _print(console, f"{what:>11}  {place}")


def _is_there(file: str) -> bool:
    try:
        return modified(file) is not None
    except StorageError:
        return False  # what was run is done, whatever became of its storage


def _print(console: Console, text: str, style: str = "") -> None:
    """Print text as it is; where a line ends is left to whatever shows it."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_settings(console: Console, comparison: Comparison) -> None:
    settings = summary_rows(comparison)
    if not settings:
        return
    columns = summary_columns(comparison)
    lines = _lines(columns, settings)
    if console.is_terminal and _whole_width(lines) > console.width:
        columns = _fitting(columns, settings, console.width)
        lines = _lines(columns, settings)
    widths, is_text = _widths(lines), [column.is_text for column in columns]
    if console.is_terminal and _whole_width(lines) > console.width:
        console.print(_narrow_table(lines, widths, is_text, console.width))
    else:
        for number, cells in enumerate(lines):
            _print(console, _aligned(cells, widths, is_text), style="" if number else "bold")
    if more := len(comparison.settings) - len(settings):
        _print(console, f"… and {more} more in the report")


def _lines(columns: Sequence[Column[Setting]], settings: Sequence[Setting]) -> list[list[str]]:
    """The headings, and a line for each setting."""
    rows = [[_one_line(c.text(s)) for c in columns] for s in settings]
    return [[c.heading for c in columns], *rows]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def _whole_width(lines: Sequence[Sequence[str]]) -> int:
    widths = _widths(lines)
    return sum(widths) + GAP * (len(widths) - 1)


def _fitting(
    columns: Sequence[Column[Setting]], settings: Sequence[Setting], width: int
) -> list[Column[Setting]]:
    """The columns without as many as may be left out, the last first, as have no room."""
    kept = list(columns)
    for column in [c for c in reversed(columns) if c.may_be_left_out]:
        lines = _lines(kept, settings)
        if LEAST_WIDTH + sum(_least_widths(lines)) + len(kept) - 1 <= width:
            break
        kept.remove(column)
    return kept


def _least_widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """Of all columns but the names: headings wrap between words, numbers stay whole."""
    headings, rows = lines[0], lines[1:]
    words = [max(map(cell_len, heading.split())) for heading in headings[1:]]
    cells = [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[1:]]
    return [max(pair) for pair in zip(words, cells, strict=True)]


def _aligned(cells: Sequence[str], widths: Sequence[int], is_text: Sequence[bool]) -> str:
    spaces = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
    whole = [
        cell + space if left else space + cell
        for cell, space, left in zip(cells, spaces, is_text, strict=True)
    ]
    return (" " * GAP).join(whole).rstrip()


def _narrow_table(
    lines: Sequence[Sequence[str]], widths: Sequence[int], is_text: Sequence[bool], width: int
) -> Table:
    """A table for a narrow terminal: names and headings wrap, numbers stay whole."""
    headings, rows = lines[0], lines[1:]
    numbers = _least_widths(lines)
    left = width - sum(numbers)
    gap = GAP if left - GAP * len(headings) >= LEAST_WIDTH else 1
    first = max(LEAST_WIDTH, min(widths[0], left - gap * len(headings)))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for heading, fitted, text in zip(headings, [first, *numbers], is_text, strict=True):
        table.add_column(Text(heading), justify="left" if text else "right", width=fitted)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _one_line(text: str) -> str:
    return " ".join(text.split())
