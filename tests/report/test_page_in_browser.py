"""The page in a real browser: charts are drawn, tables sort, nothing complains."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import made_studies as made
import pytest

from rayprune.report import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CLICK_AND_FILTER = """<script>
document.title = "sorted by epochs";
document.querySelectorAll("table.sortable th button")[2].click();
const box = document.querySelector("input[type=search]");
box.value = "slr 95"; box.dispatchEvent(new Event("input"));
</script>"""


def rendered(page: Path, profile: Path) -> tuple[str, str]:
    """The DOM after the scripts have run, and what the console said."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--enable-logging=stderr",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def epochs_column(dom: str) -> list[float]:
    body = dom.split("<h2>All settings</h2>")[1].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in body.split("<tr")[2:]]
    return [float(row[2]) for row in rows]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_charts_are_drawn_and_tables_sort_and_filter(tmp_path: Path) -> None:
    page = Path(write_report(made.write(tmp_path / "study", made.schedules_and_sparsities())))
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
