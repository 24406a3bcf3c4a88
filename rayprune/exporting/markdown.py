"""Markdown that any name or number may stand in."""

from __future__ import annotations

from collections.abc import Sequence


def line(text: object) -> str:
    """On one line, and nothing in it is a table's border or HTML."""
    words = " ".join(str(text).split())
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; every row has as many cells as the head."""
    assert all(len(row) == len(head) for row in rows)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(line, cells)) + " |" for cells in lines)


def code(text: str, language: str) -> str:
    """A block of code; its fence is longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.strip()}\n{fence}"
