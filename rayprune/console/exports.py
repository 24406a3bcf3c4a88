"""What an export came to, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.table import Table

from rayprune.exporting.exported import CARD, Exported
from rayprune.results.labels import counted, metric_name, reads_in_percent

MEGA = 1e6


def print_exported(console: Console, exported: Exported, lower_is_better: Collection[str]) -> None:
    """Print a line for each file, its metric beside the reported one, and latencies."""
    metric = _metric(exported, lower_is_better)
    in_percent = reads_in_percent(f"val_{metric.removeprefix('test_')}", lower_is_better)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file")
    unit = " %" if in_percent else ""
    for heading in ("MB", "MB zipped", f"{metric_name(metric)}{unit}", "outputs differ by"):
        table.add_column(heading, justify="right")
    table.add_column("run by")

    def value(metrics: dict[str, float]) -> str:
        found = metrics.get(metric)
        return "–" if found is None else f"{100 * found:.2f}" if in_percent else f"{found:.4g}"

    for file in exported.files:
        sizes = [f"{size / MEGA:.3g}" for size in (file.num_bytes, file.zlib_bytes)]
        differs = "–" if file.difference is None else f"{file.difference:.0e}"
        table.add_row(file.files[0], *sizes, value(dict(file.metrics)), differs, file.runtime)
    table.add_row("the study's own", "", "", value(dict(exported.reported)), "", "")
    console.print(table)
    for time in exported.latencies:
        console.print(
            f"{time.file} in {time.runtime}: {time.median_ms:.2f} ms ± {time.spread_ms:.2f}, "
            f"{time.speedup:.1f}x as fast as the dense network ({time.dense_ms:.2f} ms in "
            f"{time.dense_runtime}); {counted(time.threads, 'thread')}, batch {time.batch}, load "
            f"{time.load_average:.1f}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"card  {exported.folder}/{CARD}", highlight=False, soft_wrap=True)


def _metric(exported: Exported, lower_is_better: Collection[str]) -> str:
    """The one to show: of the metrics the first that is no loss."""
    names = [name for file in exported.files for name in file.metrics]
    better = [name for name in names if name.removeprefix("test_") not in lower_is_better]
    return (better or names)[0]
