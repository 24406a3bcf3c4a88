"""The page: self-contained, escaped, complete; and the files beside it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report import answer, write_report
from rayprune.report.page import render_page
from rayprune.results.comparison import Comparison

EVIL = "</script><script>alert(1)</script>"


def page_of(table: pa.Table, study: str = "") -> str:
    """The page without its charts: they have tests of their own."""
    return render_page(Comparison.from_table(table), (), study)


def write(folder: Path, table: pa.Table, study: str = "name: made\n") -> str:
    """The report in a study's folder; its location."""
    return write_report(made.write(folder, table, study), Comparison.from_table(table))


def words(page: str) -> str:
    """Text between tags, white space collapsed."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


def test_report_writes_the_page_and_its_charts(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "sparsity.png").write_bytes(b"of an earlier study")
    assert write(tmp_path, made.schedules_grid()) == str(tmp_path / "report.html")
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == [
        "cost.png", "peaks.png", "retraining.png",
    ]  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert all(f'id="plot-{name}"' in page for name in ("cost", "peaks", "retraining"))
    assert "vegaEmbed" in page


D1_ALONE = "ALLR goes by d1 alone: dense.trained_epochs is not given"


def test_a_network_that_was_brought_is_no_run() -> None:
    text = words(page_of(made.brought()))
    assert "Dense network" in text and "Trained elsewhere, measured here." in text
    assert "Dense run" not in text and "to the dense network that a setting started from" in text
    assert "Dense run" in words(page_of(made.schedules_grid()))


def test_what_allr_does_without_is_noted() -> None:
    assert D1_ALONE in words(page_of(made.brought(None)))
    for table in (made.brought(12), made.schedules_grid()):
        assert D1_ALONE not in words(page_of(table))


def test_page_fetches_nothing(tmp_path: Path) -> None:
    page = Path(write(tmp_path, made.one_trial())).read_text()
    assert "default-src 'none'" in page
    html = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"(?:src|href)=[\"']?https?:", html)
    assert "@import" not in html
    assert "<link" not in html


def test_a_folder_may_be_a_uri(tmp_path: Path) -> None:
    comparison = Comparison.from_table(made.table_of([made.ended("0", "failed", "boom")], []))
    assert write_report(tmp_path.as_uri(), comparison) == f"{tmp_path.as_uri()}/report.html"
    assert "No trial has finished: 1 failed." in (tmp_path / "report.html").read_text()


def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = Comparison.from_table(made.table_of([], []))
    assert write_report(".", comparison) == str(tmp_path / "report.html")


def test_page_opens_with_the_answer() -> None:
    table = made.schedules_grid()
    assert answer(Comparison.from_table(table)) in words(page_of(table)).replace("\u00a0", " ")


def test_page_names_the_best_model_and_what_it_cost() -> None:
    table = made.schedules_grid()
    text = words(page_of(table))
    best = max((r for r in table.to_pylist() if r["is_final"]), key=lambda r: r["val_accuracy"])
    assert f"95 % sparsity, test accuracy {100 * best['test_accuracy']:.2f} %" in text
    assert f"Trial {best['trial']}, chosen by the validation accuracy alone" in text
    assert "36 epochs each of 36 unique ones once; separate runs would have cost 168 (4.7x)" in text


def test_settings_are_listed_best_first_with_numbers_to_sort_by() -> None:
    page = page_of(made.random_search(300))
    body = page.split("<h2>All settings</h2>")[1].split("</table>")[0]
    cells = [re.findall(r"<td[^>]*>", row) for row in body.split("<tr>")[2:]]
    assert len(cells) == 300
    values = [float(re.search(r'data-value="([^"]+)"', row[3])[1]) for row in cells]  # type: ignore[index]
    assert values == sorted(values, reverse=True)


def test_trials_are_listed_seed_by_seed_where_there_are_several() -> None:
    assert "Every trial, seed by seed (90)" in page_of(made.equal_budget())
    assert "seed by seed" not in page_of(made.schedules_grid()).split("<h2>How to read")[0]


def test_each_sparsity_has_its_best_setting() -> None:
    text = words(page_of(made.equal_budget()).split("How sparse can it get")[1])
    assert all(f"{level} % sparsity ALLR" in text for level in (90, 95, 98))
    assert "How sparse can it get" not in page_of(made.schedules_grid())


def test_trials_without_a_result_are_listed_with_their_reasons() -> None:
    others = [
        made.ended("12", "failed", "CUDA out of memory"),
        made.ended("13", "stopped", "behind the others"),
        *(made.ended(str(n), "unfinished", "the study was interrupted") for n in range(14, 19)),
    ]
    text = words(page_of(made.schedules_grid(*others)))
    assert "Finished 12 trials 12 settings, 1 failed, 1 stopped early, 5 unfinished" in text
    assert (
        "Trials without a result Trial 12 failed CUDA out of memory "
        "Trial 13 stopped early behind the others "
        "5 trials unfinished the study was interrupted How to read this"
    ) in text
    assert "without a result" not in words(page_of(made.schedules_grid()))


def test_every_row_has_a_cell_for_each_heading() -> None:
    page = page_of(made.equal_budget())
    tables = re.findall(r"<table.*?</table>", page, flags=re.S)
    assert len(tables) == 3
    for table in tables:
        head, *rows = table.split("<tr>")[1:]
        classes = re.findall(r"<th( class=\"text)?", head.replace("<thead", ""))
        assert classes
        for row in rows:
            assert re.findall(r"<td( class=\"text)?", row) == classes


def test_notes_are_honest() -> None:
    one, three = words(page_of(made.schedules_grid())), words(page_of(made.equal_budget()))
    for text in (one, three):
        assert "by themselves they make nothing faster" in text
        assert "The test split is read once" in text
    assert "nothing is known about chance" in one
    assert "standard deviation over seeds" in three
    assert "did not reach its goal sparsity" in three


def test_everything_from_the_user_is_escaped(tmp_path: Path) -> None:
    trials = [made.imp(str(n), {"recipe": f"{EVIL}{n}"}, epochs=n + 1) for n in range(2)]
    trials.append(made.ended(EVIL, "failed", EVIL))
    table = made.table_of(trials, ["recipe"], name=EVIL)
    page = Path(write(tmp_path, table, study=EVIL)).read_text()
    assert "alert(1)" in page
    assert EVIL not in page


def test_a_diverged_trial_leaves_a_gap() -> None:
    table = made.schedules_grid()
    column = table.column_names.index("test_accuracy")
    table = table.set_column(
        column, "test_accuracy", pa.array([float("nan")] * table.num_rows)
    ).replace_schema_metadata(table.schema.metadata)
    page = page_of(table)
    assert "nan" not in words(page)
    assert "<td>–</td>" in page


GOALS = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}


def test_several_goals_have_a_section_with_the_front(tmp_path: Path) -> None:
    table = made.searcher(**GOALS)
    comparison = Comparison.from_table(table)
    page = Path(write(tmp_path, table)).read_text()
    assert (tmp_path / "plots" / "pareto.png").exists()
    section = page.split("<h2>Pareto front</h2>")[1].split("</section>")[0]
    assert 'id="plot-pareto"' in section
    assert section.count("<tr>") == 1 + len(comparison.front)
    text = words(section)
    assert "Goals: highest validation accuracy, fewest non-zero parameters." in text
    assert "The model in best/ is chosen by the validation accuracy alone, the first of 2" in text
    assert "among settings that kept their goal sparsity" in words(page)
    assert "Pareto front" not in page_of(made.searcher())
    write(tmp_path, made.searcher())
    assert not (tmp_path / "plots" / "pareto.png").exists()


def test_it_is_said_that_the_sparsest_within_a_loss_is_shipped() -> None:
    text = words(page_of(made.searcher(within_dense=0.005)))
    best = Comparison.from_table(made.searcher(within_dense=0.005)).best
    assert best is not None
    assert f"Trial {best['trial']}, the sparsest within 0.5 points of dense." in text
    assert "The sparsest within 0.5 points of dense first; then the others" in text
    assert "the sparsest setting that loses at most 0.5 points of validation accuracy" in text
    none = words(page_of(made.searcher(within_dense=0.0001)))
    assert "the closest to dense: none is within 0.01 points." in none


def test_what_cannot_be_run_is_listed_once_for_each_reason() -> None:
    text = words(page_of(made.searcher()))
    assert "Trials 40, 41, 42 failed prune.fraction_per_cycle=0.1 and 3 cycles" in text
    stopped = [made.ended(f"{n:02d}", "stopped", "behind the others") for n in range(12, 25)]
    text = words(page_of(made.schedules_grid(*stopped)))
    named = ", ".join(str(n) for n in range(12, 20))
    assert f"Trials {named} and 5 more stopped early behind the others" in text
