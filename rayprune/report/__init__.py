"""What a study found: one sentence, one HTML page, its charts as PNG, a fragment for notebooks."""

from __future__ import annotations

from pathlib import Path

from rayprune.report.answer import answer
from rayprune.report.notebook import summary_html
from rayprune.results.comparison import Comparison
from rayprune.results.files import location, plots_folder, report_file, study_file
from rayprune.results.storage import delete, read_bytes, write_bytes

__all__ = ["answer", "summary_html", "write_report"]


def write_report(folder: str | Path, comparison: Comparison) -> str:
    """Write report.html and plots/*.png into a study's folder; return the page's location.

    `folder` is a path or a URI; study.yaml is shown if it lies there. Raises ``StorageError`` where
    the files cannot be written.
    """
    # Altair is slow to import and only charts need it.
    from rayprune.report.charts import NAMES, make_plots
    from rayprune.report.page import render_page

    place = location(folder)
    plots = {plot.name: plot for plot in make_plots(comparison)}
    study = (read_bytes(study_file(place)) or b"").decode(errors="replace")
    page = render_page(comparison, tuple(plots.values()), study)
    write_bytes(report_file(place), page.encode())
    for name in NAMES:
        file = f"{plots_folder(place)}/{name}.png"
        if name in plots:
            write_bytes(file, plots[name].png())
        else:
            delete(file)  # of an earlier report with other trials
    return report_file(place)
