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
from rayprune.report.deployed import dense_measured, limits, measured_notes
from rayprune.report.notebook import summary_html
from rayprune.report.numbers import goal_value, measured, speedup
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
    [
        (1.94, "1.9x as fast as"),
        (12.3, "12x as fast as"),
        (1.04, "1.04x as fast as"),
        (1.02, "as fast as"),
        (0.98, "as fast as"),
        (0.96, "1.04x slower than"),
        (0.77, "1.3x slower than"),
        (0.001, "1000x slower than"),
    ],
)
def test_the_answer_says_how_much_faster_in_what(speedup: float, words: str) -> None:
    told = answer(one(measured_speedup=speedup, latency_ms=2.062))
    assert told.endswith(
        f"x fewer multiply-adds in theory, and {words} the fastest dense runtime when measured "
        "(2.06 ms in MNN 3.6.1 for 4.00 ms in OpenVINO 2026.4; 1 thread, batch 1)."
    )


def test_one_runtime_is_named_once() -> None:
    told = answer(one(dense_runtime="MNN 3.6.1", measured_speedup=0.88, latency_ms=4.545))
    assert ", and 1.1x slower than dense when measured (4.54 ms for 4.00 ms in MNN 3.6.1; 1" in told


def test_without_a_speed_up_in_theory_the_measured_one_stands_alone() -> None:
    table = made.measured(made.one_trial())
    none = pa.nulls(table.num_rows, pa.float64())
    place = table.column_names.index("theoretical_speedup")
    told = answer(Comparison.from_table(table.set_column(place, "theoretical_speedup", none)))
    assert "), 2.4x as fast as the fastest dense runtime when measured (1.6" in told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.43, "2.4x"), (1.0, "1.0x"), (0.996, "1.0x"), (0.96, "0.96x"), (0.8345, "0.83x"),
        (0.1, "0.10x"), (0.01234, "0.0123x"), (0.00001, "0.0000100x"), (None, "–"),
    ],
)  # fmt: skip
def test_a_speed_up_below_one_has_digits_enough(value: float | None, text: str) -> None:
    assert speedup(value) == text
    if value is not None:
        table = one(measured_speedup=value)
        (mark,) = [c for c in setting_columns(table) if c.heading == "speed-up measured"]
        assert mark.text(table.settings[0]) == text


@pytest.mark.parametrize(
    ("limit", "words"), [(5, "5 ms"), (0.25, "0.25 ms"), (1234567.5, "1,234,567.5 ms")]
)
def test_limits_read_as_they_were_written(limit: float, words: str) -> None:
    comparison = Comparison.from_table(made.searcher(within={"latency_ms": limit}))
    assert limits(comparison) == words


WAITING = {"within": {"latency_ms": 5.0}, "measure": "mnn, 1 thread, batch 1"}


@pytest.mark.parametrize(
    ("within_dense", "lead"),
    [
        (None, "No setting is known to be within 5 ms (40 networks not measured); the best: "),
        (
            0.01,
            "No setting is known to be within 5 ms (40 networks not measured); the sparsest within "
            "one point of dense: ",
        ),
        (
            0.0,
            "No setting is known to be within 5 ms (40 networks not measured), and none stays "
            "within 0 points of its dense run; the closest: ",
        ),
    ],
)
def test_what_is_not_measured_yet_is_not_said_to_be_over(
    within_dense: float | None, lead: str
) -> None:
    comparison = Comparison.from_table(made.searcher(within_dense=within_dense, **WAITING))
    told = answer(comparison)
    assert told.startswith(lead) and told.count("not measured") == 1
    assert "none is known to be within 5 ms" in json.dumps(cards(comparison))
    (mark,) = [c for c in setting_columns(comparison) if c.heading == "within 5 ms"]
    assert {mark.text(setting) for setting in comparison.settings} == {"–"}


def test_one_that_is_known_to_be_within_leads_while_others_wait() -> None:
    table = made.measured(made.searcher(**WAITING))
    place = table.column_names.index("latency_ms")
    rows = table.to_pylist()
    some = [row["latency_ms"] if row["trial"] in ("05", "06") else None for row in rows]
    table = table.set_column(place, "latency_ms", pa.array(some, pa.float64()))
    told = answer(Comparison.from_table(table))
    assert told.startswith("The best within 5 ms: ") and told.endswith(
        "; 38 networks not measured."
    )
    loss = answer(Comparison.from_table(made.with_summary(table, within_dense=0.0)))
    assert loss.startswith("No setting known to be within 5 ms stays within 0 points of its dense")


@pytest.mark.parametrize(
    ("within_dense", "limit", "words"),
    [
        (0.0, 1.7, "of those within 1.7 ms the closest to dense: none is within 0 points."),
        (0.0, 0.1, "the closest to dense: none is within 0 points, none is within 0.1 ms."),
        (0.01, 2.0, "of those within 2 ms the sparsest within one point of dense."),
        (0.01, 0.1, "the sparsest within one point of dense: none is within 0.1 ms."),
        (None, 1.5, "of those within 1.5 ms the one chosen by the validation accuracy alone."),
        (None, 0.1, "chosen by the validation accuracy alone: none is within 0.1 ms."),
    ],
)
def test_the_card_says_the_limits_first(
    within_dense: float | None, limit: float, words: str
) -> None:
    table = made.searcher(within_dense=within_dense, within={"latency_ms": limit})
    assert cards(Comparison.from_table(made.measured(table)))[0]["text"].endswith(f", {words}")


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


def test_a_dense_network_that_is_fastest_here_has_one_number() -> None:
    known = made.measurement(0.0, dense_runtime="MNN 3.6.1", latency_ms=4.02)
    table = made.measured(made.one_trial(), {"dense-0": known})
    assert dense_measured(Comparison.from_table(table)).endswith(
        " MB, 4.02 ms in MNN 3.6.1, 1 thread, batch 1, its fastest runtime"
    )


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
