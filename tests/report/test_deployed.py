"""What is said of networks that were measured as files: answer, columns, notes, terminal, page."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import made_studies as made
import pyarrow as pa
import pytest
from rich.console import Console

from rayprune.console.summary import print_summary
from rayprune.report.answer import answer
from rayprune.report.columns import setting_columns, summary_columns, trial_columns
from rayprune.report.deployed import dense_measured, measured_notes
from rayprune.report.notebook import summary_html
from rayprune.report.numbers import goal_value, measured
from rayprune.report.page import cards, notes, render_page
from rayprune.results.comparison import Comparison

KEY = "allr-2-0.95-1-1-0"  # of the one trial's last stage
NEW = ("speed-up measured", "latency ms", "file MB")


def one(**fields: Any) -> Comparison:
    """One trial, measured as `fields` say."""
    table = made.measured(made.one_trial(), {KEY: made.measurement(**fields)})
    return Comparison.from_table(made.with_summary(table, measure="mnn, 1 thread, batch 1"))


def said(table: pa.Table, **summary: Any) -> str:
    return answer(Comparison.from_table(made.with_summary(made.measured(table), **summary)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.314, "2.31"), (4.0, "4.00"), (0.04567, "0.0457"), (45.678, "45.7"), (456.78, "457"),
        (1234.5, "1,234"), (9.996, "10.0"), (0.9999, "1.00"), (None, "–"),
    ],
)  # fmt: skip
def test_three_digits(value: float | None, text: str) -> None:
    assert measured(value) == text


def test_goals_have_their_units() -> None:
    assert goal_value(one(), "latency_ms", 2.314) == "2.31 ms"
    assert goal_value(one(), "file_mb", 4.5) == "4.50 MB"


@pytest.mark.parametrize(
    ("speedup", "words"),
    [(1.94, "1.9x faster"), (0.8, "0.8x, slower"), (1.02, "as fast as dense"), (12.0, "12.0x f")],
)
def test_the_answer_says_how_much_faster_in_what(speedup: float, words: str) -> None:
    told = answer(one(measured_speedup=speedup, latency_ms=2.062))
    assert f"x fewer multiply-adds in theory, measured {words}" in told
    assert (
        " (2.06 ms for 4.00 ms dense in OpenVINO 2026.4) in MNN 3.6.1, 1 thread, batch 1." in told
    )


def test_without_measurements_nothing_is_said() -> None:
    plain = Comparison.from_table(made.schedules_grid())
    assert "measured" not in answer(plain) and measured_notes(plain) == []
    assert dense_measured(plain) == ""
    assert not {*NEW} & {column.heading for column in setting_columns(plain)}
    waiting = made.with_summary(made.schedules_grid(), measure="mnn, 1 thread, batch 1")
    assert answer(Comparison.from_table(waiting)).endswith("; 12 networks not measured.")


def test_the_best_within_a_limit_leads() -> None:
    told = said(made.searcher(), within={"latency_ms": 1.5})
    assert told.startswith("The best within 1.5 ms: ")
    assert said(made.searcher(), within={"latency_ms": 5, "file_mb": 0.5}).startswith(
        "The best within 5 ms and 0.5 MB: "
    )


@pytest.mark.parametrize(
    ("within_dense", "limit", "lead"),
    [
        (None, 0.1, "No setting is within 0.1 ms; the best: "),
        (0.01, 2.0, "The sparsest within one point of dense and within 2 ms: "),
        (0.01, 0.1, "No setting is within 0.1 ms; the sparsest within one point of dense: "),
        (
            0.0,
            2.0,
            "No setting within 2 ms stays within 0 points of its dense run; the closest: ",
        ),
        (
            0.0,
            0.1,
            "No setting is within 0.1 ms, and none stays within 0 points of its dense run; the "
            "closest: ",
        ),
    ],
)
def test_limits_and_a_tolerated_loss(within_dense: float | None, limit: float, lead: str) -> None:
    table = made.searcher(within_dense=within_dense)
    assert said(table, within={"latency_ms": limit}).startswith(lead)


def test_columns_stand_beside_the_speed_up_in_theory() -> None:
    comparison = Comparison.from_table(made.measured(made.schedules_and_sparsities()))
    for columns in (setting_columns(comparison), summary_columns(comparison)):
        headings = [column.heading for column in columns]
        place = headings.index("speed-up in theory")
        assert tuple(headings[place + 1 : place + 4]) == NEW
        setting = comparison.settings[0]
        cells = [column.text(setting) for column in columns[place + 1 : place + 4]]
        assert re.fullmatch(r"\d\.\dx", cells[0])
        assert cells[1:] == [measured(setting.value(c)) for c in ("latency_ms", "file_mb")]
    assert {*NEW} <= {column.heading for column in trial_columns(comparison)}


def test_a_limit_marks_settings() -> None:
    table = made.measured(made.searcher(within={"latency_ms": 1.5}))
    comparison = Comparison.from_table(table)
    (mark,) = [c for c in setting_columns(comparison) if c.heading == "within 1.5 ms"]
    for setting in comparison.settings:
        assert mark.text(setting) == ("yes" if setting.value("latency_ms") <= 1.5 else "no")


def test_a_goal_that_is_measured_has_one_column() -> None:
    goals = {"metrics": ("val_accuracy", "latency_ms"), "modes": ("max", "min")}
    comparison = Comparison.from_table(made.measured(made.searcher(**goals)))
    headings = [column.heading for column in setting_columns(comparison)]
    assert [h for h in headings if "latency" in h] == ["latency ms"]
    assert "(lowest latency, 1." in answer(comparison)


def test_the_dense_network_is_told_everywhere() -> None:
    comparison = Comparison.from_table(made.measured(made.schedules_and_sparsities()))
    dense = (
        "The dense network as a file: 3.46 MB, 4.90 ms in MNN 3.6.1, 1 thread, batch 1; its "
        "fastest runtime is OpenVINO 2026.4, 4.00 ms"
    )
    assert dense_measured(comparison) == dense
    console = Console(file=io.StringIO(), width=400)
    print_summary(console, comparison)
    assert dense in console.file.getvalue()  # type: ignore[attr-defined]
    assert dense in summary_html(comparison)
    assert any(dense in card["text"] for card in cards(comparison))


def test_notes_say_how_it_was_measured() -> None:
    first, *others = measured_notes(one(load_average=1.26))
    for words in (
        "MNN 3.6.1, 1 thread, batch 1 on AMD EPYC 7R13",
        "fastest for it (OpenVINO 2026.4), take turns in one process",
        "middle half spans at most 2 % of it",
        "load average was 0.3 to 1.3",
    ):
        assert words in first
    assert others == [] and first in notes(one(load_average=1.26))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"machine": "Xeon"}, "on 2 different machines:"),
        ({"measured_with": "MNN 3.7.0, 1 thread, batch 1"}, "with 2 different versions:"),
        (
            {"machine": "Xeon", "measured_with": "MNN 3.7.0, 1 thread, batch 1"},
            "on 2 different machines and with 2 different versions:",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(other: dict[str, str], words: str) -> None:
    *_, last = measured_notes(one(**other))
    assert words in last and "cannot be compared directly, their measured speed-ups can" in last


def test_the_page_has_it_all_and_says_what_was_chosen() -> None:
    table = made.measured(made.schedules_and_sparsities(1))
    limited = made.with_summary(table, within={"latency_ms": 1.5})
    comparison = Comparison.from_table(limited)
    page = render_page(comparison, (), "").replace("\u2011", "-")
    for words in (
        *NEW,
        "Those within 1.5 ms before the others. Best first.",
        "among settings within 1.5 ms if there are any",
        "of those within 1.5 ms",
        f"fewer parameters, {measured(comparison.best['latency_ms'])} ms, ",  # type: ignore[index]
    ):
        assert words in page
    over = Comparison.from_table(made.with_summary(table, within={"latency_ms": 0.5}))
    assert "none is within 0.5 ms" in json.dumps(cards(over))
