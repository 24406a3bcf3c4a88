"""The summary in a terminal and in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import made_studies as made
import pyarrow as pa
import pytest
from rich.console import Console

from rayprune.console.summary import print_files, print_summary
from rayprune.results.comparison import Comparison
from rayprune.results.storage import StorageError


def printed(table: pa.Table, width: int = 80, *, terminal: bool = False) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_summary(console, Comparison.from_table(table))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_in_a_terminal_numbers_stay_whole_at_any_width(width: int) -> None:
    lines = printed(made.equal_budget(), width, terminal=True)
    best = next(line for line in lines if line.startswith("ALLR"))
    shown = ["ALLR", "90", "%", "15", "89.02", "±", "0.10", "-0.27", "±", "0.02", "reference",
             "88.62", "±", "0.10", "7.1x"]  # fmt: skip
    # The last ones of those that may are left out where there is no room.
    assert best.split() == (shown if width > 80 else shown[:11])
    table = lines[:-2]  # the sentences after it may be wrapped by whoever shows them
    assert max(map(len, table)) <= width
    assert "… and 10 more in the report" in lines


@pytest.mark.parametrize("width", [20, 80])
def test_a_log_has_no_width(width: int) -> None:
    """Each heading and each setting is one line, whatever width a console thinks it has."""
    table = made.schedules_grid(made.ended("12", "failed", "no such file: " + "long/" * 50))
    lines = printed(table, width)
    assert lines == printed(table, 10_000)
    for heading in ("val accuracy %", "vs dense, points", "test accuracy %", "speed-up in theory"):
        assert heading in lines[0]
    assert len(lines) == 1 + 12 + 3
    assert len({len(line) for line in lines[:13]}) == 1  # columns are aligned to their ends
    assert not any(line.endswith(" ") for line in lines)


def test_a_terminal_that_is_wide_enough_shows_what_a_log_does() -> None:
    table = made.schedules_grid()
    assert printed(table, 200, terminal=True) == printed(table)


def test_answer_epochs_and_failures_follow_the_table() -> None:
    lines = printed(made.schedules_grid(made.ended("12", "failed", "[bold]no such file")))
    assert lines[0].split()[0] == "setting"
    assert lines[13:] == [
        "trial 12 failed: [bold]no such file",
        "ALLR with 3 epochs keeps 95 % sparsity at -0.3 points of validation accuracy "
        "(dense 89.1 %, one seed), 12.8x fewer multiply-adds in theory; fine-tuning at the last "
        "rate would have lost 1.1 points more (one seed).",
        "36 epochs run, each of 36 unique ones once; separate runs would have cost 168 (4.7x)",
    ]


def test_trials_without_a_result_are_told_with_their_reasons() -> None:
    others = [
        *(made.ended(str(n), "unfinished", "the study was interrupted") for n in range(12, 17)),
        made.ended("17", "unfinished"),
        made.ended("18", "stopped", "behind the others"),
    ]
    assert printed(made.schedules_grid(*others))[13:16] == [
        "trial 18 stopped early: behind the others",
        "5 trials unfinished: the study was interrupted",
        "1 trial unfinished",
    ]


def test_emptied_layers_of_finished_trials_are_a_warning() -> None:
    def emptied(name: str, layer: str) -> made.TrialOutcome:
        trial = made.renamed(made.imp(name, {}))
        return replace(
            trial, records=(trial.records[0], replace(trial.records[1], emptied_layers=(layer,)))
        )

    trials = [emptied("0", "conv1"), replace(emptied("1", "conv2"), status="failed")]
    warnings = [line for line in printed(made.table_of(trials, [])) if "warning" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: trial 0 removed every weight of conv1. ")


def test_a_name_with_line_ends_or_markup_is_one_line() -> None:
    trials = [made.imp(str(n), {"recipe": f"[red]two\nlines {n}"}, epochs=n + 1) for n in range(2)]
    lines = printed(made.table_of(trials, ["recipe"]))
    assert {line[:16] for line in lines[1:3]} == {"[red]two lines 0", "[red]two lines 1"}


def test_a_network_that_was_brought_costs_retraining_alone() -> None:
    lines = printed(made.brought())
    costs = {line.split()[2]: line.split()[6] for line in lines[1:9]}
    assert costs == {"1": "1", "3": "3"}, "epochs in the name, and in all"
    assert lines[-1] == "16 epochs run"


def test_what_allr_does_without_is_said_at_the_end() -> None:
    said = "ALLR goes by d1 alone: dense.trained_epochs is not given"
    assert printed(made.brought(None))[-1] == said
    assert said not in printed(made.brought())


def test_nothing_finished() -> None:
    lines = printed(made.table_of([made.ended("0", "failed", "boom")], []))
    assert lines == ["trial 0 failed: boom", "No trial has finished: 1 failed.", "0 epochs run"]


def test_files_are_named_as_far_as_they_are_there(tmp_path, capsys, monkeypatch) -> None:
    def unavailable(file: str) -> None:
        raise StorageError("503")

    folder = str(made.write(tmp_path, made.one_trial()))
    print_files(Console(), folder)
    assert capsys.readouterr().out.split() == ["table", f"{folder}/results.parquet"]
    monkeypatch.setattr("rayprune.console.summary.modified", unavailable)
    print_files(Console(), folder)
    assert capsys.readouterr().out == ""


def test_the_front_is_marked_and_shown_whole() -> None:
    goals = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}
    lines = printed(made.searcher(**goals))
    front = Comparison.from_table(made.searcher(**goals)).front
    assert lines[0].split()[-1] == "Pareto" and "non-zero parameters" in lines[0]
    marked = [line for line in lines[1:21] if line.endswith("front")]
    assert [line.split("  ")[0] for line in marked] == [setting.label for setting in front]
    assert lines[21] == "… and 20 more in the report"
    assert lines[22].startswith("trials 40, 41, 42 failed: prune.fraction_per_cycle")
