"""The page in a real browser: charts are drawn, tables sort, nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report import write_report
from rayprune.results.comparison import Comparison

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CLICK_AND_FILTER = """<script>
document.title = "sorted by epochs";
document.querySelectorAll("table.sortable th button")[2].click();
const box = document.querySelector("input[type=search]");
box.value = "slr 95"; box.dispatchEvent(new Event("input"));
</script>"""


# A window cannot be narrower than 500 pixels, the page can.
MEASURE = """<style>html { width: WIDTHpx; }</style><script>
addEventListener("load", () => setTimeout(() => {
  const cards = [...document.querySelectorAll("section, .cards div, header")];
  const right = box => box.getBoundingClientRect().right;
  const spilling = cards.flatMap(card => [...card.children]
    .filter(inner => right(inner) > right(card) + 1).map(inner => inner.id || inner.className));
  const charts = document.querySelectorAll(".plot svg.marks").length;
  const cut = [...document.querySelectorAll(".plot")]
    .filter(plot => plot.scrollWidth > plot.clientWidth + 1).map(plot => plot.firstElementChild.id);
  const reaches = Math.max(...cards.map(right));
  document.title = JSON.stringify({reaches, spilling, cut, charts});
}, 3000));
</script>"""


def rendered(page: Path, profile: Path) -> tuple[str, str]:
    """The DOM after the scripts have run, and what the console said."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={profile}", "--window-size=1200,900", "--virtual-time-budget=10000",
        "--enable-logging=stderr",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def written(folder: Path, table: pa.Table) -> Path:
    return Path(write_report(made.write(folder, table), Comparison.from_table(table)))


def epochs_column(dom: str) -> list[float]:
    body = dom.split("<h2>All settings</h2>")[1].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in body.split("<tr")[2:]]
    return [float(row[2]) for row in rows]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_charts_are_drawn_and_tables_sort_and_filter(tmp_path: Path) -> None:
    page = written(tmp_path / "study", made.schedules_and_sparsities())
    page.write_text(page.read_text() + CLICK_AND_FILTER)
    dom, console = rendered(page, tmp_path / "profile")
    assert console == ""
    for name in ("cost", "sparsity", "retraining", "peaks"):
        drawn = dom.split(f'id="plot-{name}"')[1].split("</section>")[0]
        assert drawn.count('aria-roledescription="point"') > 4, name
    assert "could not be drawn" not in dom.split("<script>")[0]
    assert "sorted by epochs" in dom
    epochs = epochs_column(dom)
    assert len(epochs) == 27
    assert epochs == sorted(epochs, reverse=True)
    body = dom.split("<h2>All settings</h2>")[1].split("</tbody>")[0]
    shown = [row for row in body.split("<tr")[2:] if not row.startswith(' hidden=""')]
    assert len(shown) == 3
    assert all("SLR" in row and "95 %" in row for row in shown)


def several_goals() -> pa.Table:
    return made.searcher(metrics=("val_accuracy", "num_nonzero"), modes=("max", "min"))


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("study", [made.schedules_and_sparsities, made.equal_budget, several_goals])
def test_every_chart_fits_its_card_and_every_card_the_window(
    study: Callable[[], pa.Table], width: int, tmp_path: Path
) -> None:
    page = written(tmp_path / "study", study())
    head = f"{MEASURE.replace('WIDTH', str(width))}</head>"
    page.write_text(page.read_text().replace("</head>", head, 1))
    dom, _ = rendered(page, tmp_path / "profile")
    found = json.loads(unescape(dom.split("<title>")[1].split("</title>")[0]))
    assert found["charts"] >= 2
    assert 0.8 * width < found["reaches"] <= width
    assert found["spilling"] == found["cut"] == []
