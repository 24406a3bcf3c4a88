"""The answer and the table of settings as HTML that a notebook shows."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from rayprune.report.answer import answer, counts_without_result, epochs_sentence
from rayprune.report.columns import Column, summary_columns, summary_rows
from rayprune.report.deployed import dense_measured
from rayprune.results.comparison import Comparison
from rayprune.results.setting import Setting

# Notebooks are light or dark: text takes their colour, and lines are grey on both.
LINE = "border-bottom: 1px solid rgba(128, 128, 128, .4)"
CELL = "padding: 4px 10px; white-space: nowrap; background: none; color: inherit"


def summary_html(comparison: Comparison) -> str:
    """A small HTML fragment without scripts or links; everything from the user is escaped."""
    settings = summary_rows(comparison)
    more = len(comparison.settings) - len(settings)
    lines = [
        f"… and {more} more settings" if more else "",
        dense_measured(comparison),
        "; ".join(filter(None, [*counts_without_result(comparison), epochs_sentence(comparison)])),
    ]
    return "\n".join(
        [
            f'<div role="group" aria-label="{escape(comparison.summary.name)}">',
            f'<p style="font-weight: 600">{escape(answer(comparison))}</p>',
            *(_table(summary_columns(comparison), settings) if settings else ()),
            *(f'<p style="opacity: .75">{escape(line)}</p>' for line in lines if line),
            "</div>",
        ]
    )


def _table(columns: list[Column[Setting]], settings: Iterable[Setting]) -> list[str]:
    # In a box of its own, so that a wide table scrolls and the notebook does not.
    headings = "".join(
        f'<th style="{_style(c)}; font-weight: 600">{escape(c.heading)}</th>' for c in columns
    )
    rows = (
        "".join(f'<td style="{_style(c)}">{escape(c.text(s))}</td>' for c in columns)
        for s in settings
    )
    return [
        '<div style="overflow-x: auto"><table style="border-collapse: collapse">',
        f"<thead><tr>{headings}</tr></thead>",
        "<tbody>",
        *(f"<tr>{row}</tr>" for row in rows),
        "</tbody></table></div>",
    ]


def _style(column: Column[Setting]) -> str:
    return f"text-align: {'left' if column.is_text else 'right'}; {CELL}; {LINE}"
