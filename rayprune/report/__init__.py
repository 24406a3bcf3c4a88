"""What a study found: one HTML page, its charts as PNG, one sentence and a table."""

from __future__ import annotations

from pathlib import Path

from rayprune.console.summary import print_summary
from rayprune.report.sentence import answer, summary_table
from rayprune.results.comparison import best_trial, location, read_results
from rayprune.results.files import plots_folder, report_file, study_file
from rayprune.results.storage import delete, read_bytes, write_bytes

__all__ = ["answer", "best_trial", "print_summary", "summary_table", "write_report"]


def write_report(folder: str | Path) -> str:
    """Write report.html and plots/*.png beside a study's results; returns the page's location.

    `folder` is the study's folder or a URI of it. Raises ``ValueError`` where it holds no results
    of ours, ``StorageError`` where the files cannot be written.
    """
    # Altair is slow to import and only charts need it.
    from rayprune.report.charts import NAMES, make_plots
    from rayprune.report.page import render_page

    place = location(folder)
    results = read_results(place)
    study = read_bytes(study_file(place)) or b""
    plots = make_plots(results)
    write_bytes(
        report_file(place), render_page(results, plots, study.decode(errors="replace")).encode()
    )
    images = {plot.name: plot.png() for plot in plots}
    for name in NAMES:
        file = f"{plots_folder(place)}/{name}.png"
        if name in images:
            write_bytes(file, images[name])
        else:
            delete(file)  # of an earlier report with other trials
    return report_file(place)
