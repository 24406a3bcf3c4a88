"""The summary in a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import made_studies as made
import pyarrow as pa
import pytest
from rich.console import Console

from rayprune.report import print_summary


def printed(folder: Path, table: pa.Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_summary(console, made.write(folder, table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_numbers_stay_whole_at_any_width(tmp_path: Path, width: int) -> None:
    lines = printed(tmp_path, made.equal_budget(), width)
    best = next(line for line in lines if line.startswith("ALLR"))
    assert best.split() == ["ALLR", "90", "%", "15", "89.02", "±", "0.10", "-0.27", "±", "0.02",
                            "88.62", "±", "0.10", "7.1x"]  # fmt: skip
    table = lines[:-2]  # the sentences after it may be wrapped by whoever shows them
    assert max(map(len, table)) <= width
    assert "… and 10 more in the report" in lines


def test_answer_epochs_and_failures_follow_the_table(tmp_path: Path) -> None:
    table = made.schedules_grid({"12": "[bold]no such file"})
    lines = printed(tmp_path, table, width=200)
    assert lines[0].split()[0] == "setting"
    assert lines[13:] == [
        "trial 12 failed: [bold]no such file",
        "ALLR with 3 epochs keeps 95 % sparsity at -0.3 points of validation accuracy "
        "(dense 89.1 %, one seed), 12.8x fewer multiply-adds in theory.",
        "36 epochs run, each of 36 unique ones once; separate runs would have cost 168 (4.7x)",
    ]


def test_nothing_finished(tmp_path: Path) -> None:
    lines = printed(tmp_path, made.table_of([], [], {"0": "boom"}), width=80)
    assert lines[-2:] == ["No trial has finished: 1 failed.", "0 epochs run"]
