"""What was tried: counted, chosen, and with which results."""

from __future__ import annotations

import math
import re
import statistics
from html import unescape

import made_studies as made
import pyarrow as pa

from rayprune.report.page import render_page
from rayprune.report.tries import tries_caption, tries_columns
from rayprune.results.comparison import Comparison


def rows_of(table: pa.Table) -> list[dict[str, str]]:
    comparison = Comparison.from_table(table)
    columns = tries_columns(comparison)
    return [{c.heading: c.text(s) for c in columns} for s in comparison.settings]


def accuracy(lost: float) -> str:
    """The mean over the seeds of tuning."""
    dense = statistics.fmean(made.dense(seed).metrics["val_accuracy"] for seed in (7, 8))
    return f"{100 * (dense - lost):.2f} %"


def test_each_setting_tells_its_tries_and_what_they_chose() -> None:
    assert rows_of(made.tuned()) == [
        {
            "setting": f"{schedule} with 1 epoch",
            "goal": "95 %",
            "tries": "2",
            "chosen": f"lr={lr}",
            "best try, validation accuracy": accuracy(0.001),
            "median, validation accuracy": accuracy((0.001 + 0.03) / 2),
            "worst, validation accuracy": accuracy(0.03),
        }
        for schedule, lr in (("ALLR", 0.2), ("SLR", 0.3))
    ]


def test_a_try_without_a_value_is_not_counted() -> None:
    table = made.tuned()
    values = [
        math.nan if row["phase"] == "tune" and row["optim.lr"] == 0.1 else row["val_accuracy"]
        for row in table.to_pylist()
    ]
    at = table.column_names.index("val_accuracy")
    table = table.set_column(at, "val_accuracy", pa.array(values))
    allr, _ = rows_of(table)
    assert allr["tries"] == "1"
    assert allr["worst, validation accuracy"] == accuracy(0.001)


def test_the_page_has_a_section_of_what_was_tried() -> None:
    comparison = Comparison.from_table(made.tuned())
    page = render_page(comparison, (), "")
    section = page.split("<h2>What was tried</h2>")[1].split("</section>")[0]
    assert section.count("<tr>") == 3
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", section)))
    assert tries_caption(comparison) in text
    assert "by the validation accuracy of its tries, on seeds of their own " in text
    assert "and tuning took 104 epochs." in text
    assert "14 trials</b><p>2 settings, 8 tries" in page
    assert "What was tried" not in render_page(Comparison.from_table(made.cycles()), (), "")
