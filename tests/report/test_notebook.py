"""The fragment for notebooks: complete, escaped, without anything of its own to load."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import made_studies as made
import pyarrow as pa

from rayprune.report import answer, summary_html
from rayprune.report.columns import SUMMARY_ROWS
from rayprune.results.comparison import Comparison

EVIL = "</table><script>alert('1')</script>"


class Tags(HTMLParser):
    """Every tag is closed by its own, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def html_of(table: pa.Table) -> str:
    return summary_html(Comparison.from_table(table))


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_it_has_the_answer_the_settings_and_the_cost() -> None:
    table = made.schedules_grid(made.ended("12", "failed", "boom"))
    text = words(html_of(table))
    assert answer(Comparison.from_table(table)) in text
    assert all(f"{name} with 3 epochs" in text for name in ("ALLR", "SLR", "FT"))
    assert "val accuracy %" in text
    assert "1 failed; 36 epochs run, each of 36 unique ones once;" in text


def test_it_is_plain_html_in_the_colours_of_the_notebook() -> None:
    html = html_of(made.equal_budget())
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    assert {"table", "th", "td"} <= tags.seen
    assert not tags.seen & {"script", "style", "link", "img", "a"}
    assert "color: inherit" in html
    assert "#" not in html


def test_many_settings_are_cut_and_said() -> None:
    html = html_of(made.random_search(50))
    assert html.count("<tr>") == 1 + SUMMARY_ROWS
    assert f"… and {50 - SUMMARY_ROWS} more settings" in html


def test_a_study_without_results_is_a_sentence() -> None:
    html = html_of(made.table_of([made.ended("0", "unfinished")], []))
    assert "No trial has finished: 1 unfinished." in html
    assert "<table" not in html


def test_everything_from_the_user_is_escaped() -> None:
    trials = [made.imp(str(n), {"recipe": f"{EVIL}{n}"}, epochs=n + 1) for n in range(2)]
    html = html_of(made.table_of(trials, ["recipe"], name=f'">{EVIL}'))
    tags = Tags()
    tags.feed(html)
    assert "script" not in tags.seen
    assert f"{EVIL}0" in words(html)
