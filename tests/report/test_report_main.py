"""The command: its exit codes, its messages, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import made_studies as made
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprune.report.__main__ import main


def test_writes_the_report_and_prints_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(made.write(tmp_path, made.one_trial()))]) == 0
    printed = capsys.readouterr().out
    assert "keeps 95 % sparsity" in printed
    assert f"report: {tmp_path / 'report.html'}" in printed
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("content", [None, b"", b"not a table"])
def test_no_results_is_a_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "results.parquet").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert str(tmp_path / "results.parquet") in message


def test_tables_of_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "results.parquet")
    assert main([str(tmp_path)]) == 2
    assert "was not written by rayprune" in capsys.readouterr().err


def test_command_line_has_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rayprune.report", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nowhere/results.parquet is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_report_is_cheap() -> None:
    code = "import sys, rayprune.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "rayprune.results.comparison" in loaded
    assert not loaded & {"torch", "ray", "altair", "vl_convert", "pandas", "jinja2"}
