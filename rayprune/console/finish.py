"""After a search: the best model on disk, the report, and what people read in the terminal."""

from __future__ import annotations

from rich.console import Console

from rayprune import results
from rayprune.report import best_trial, print_summary, write_report
from rayprune.results.outcome import Outcome

FAILED = 1  # exit code of a study in which a trial could not be run


def finish(outcome: Outcome, console: Console) -> int:
    """Write best/ and report.html, print the summary; gives the study's exit code.

    Raises ``StorageError``.
    """
    if outcome.finished:
        _write_best(outcome)
        write_report(outcome.folder)
    print_summary(console, outcome.folder)
    for trial, records in outcome.finished.items():
        if emptied := records[-1].emptied_layers:
            console.print(
                f"warning: trial {trial} removed every weight of {', '.join(emptied)}",
                markup=False,
                style="yellow",
            )
    if outcome.finished:
        for what, place in (
            ("report", results.report_file(outcome.folder)),
            ("table", results.table_file(outcome.folder)),
            ("best model", results.best_folder(outcome.folder)),
        ):
            console.print(f"{what:>10}  {place}", markup=False, highlight=False, soft_wrap=True)
    return FAILED if outcome.errors else 0


def _write_best(outcome: Outcome) -> None:
    from rayprune.exporting.model_files import write_model
    from rayprune.snapshot.encoding import decode

    table, _ = results.read_table(outcome.folder)
    row = best_trial(table)
    content = results.load_snapshot(outcome.storage, row["key"])
    if content is None:
        raise results.StorageError(f"the snapshot of stage {row['key']} is gone or damaged")
    about = {"study": outcome.study.name, "trial": row["trial"], "key": row["key"]}
    experiment = next(t.experiment for t in outcome.trials if t.name == row["trial"])
    write_model(decode(content), experiment, results.best_folder(outcome.folder), about)
