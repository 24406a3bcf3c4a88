"""What a person calls a setting or a metric: "ALLR with 3 epochs", "validation accuracy"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

MOST_COLOURS = 10  # more than this cannot be told apart
PLAIN_FIELDS = {"batch_size", "precision", "task"}  # without a dot, but no named cases
ELSEWHERE = {"seed", "prune.sparsity", "dense.sparsify.method"}  # have columns of their own
GOALS = {
    "theoretical_speedup": "speed-up in theory",
    "num_nonzero": "non-zero parameters",
    "flops_nonzero": "multiply-adds",
    "total_epochs": "epochs",
    "latency_ms": "latency",
    "file_mb": "file size",
}
UNITS = {"latency_ms": "ms", "file_mb": "MB"}
AS_SAID = {"iou": "IoU", "miou": "mIoU"}  # other words as the task writes them
COUNTED = {"num_nonzero", "flops_nonzero", "total_epochs"}
SAID = {
    "imp": {"retrain.schedule", "retrain.epochs", "prune.cycles", "prune.fraction_per_cycle"},
    "bimp": {"budget.epochs"},
}


def said(values: Mapping[str, Any]) -> list[str]:
    """Fields with their values, "lr=0.01235": the last part of a path if it is one field's alone.

    Numbers in four digits; what is not set is left out.
    """
    short = {path: path.rsplit(".", 1)[-1] for path in values}
    times = Counter(short.values())
    return [
        f"{short[path] if times[short[path]] == 1 else path}={shown(value)}"
        for path, value in values.items()
        if value is not None
    ]


def shown(value: Any) -> str:
    """A value in a line or a cell: numbers in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_dense(row: Row) -> bool:
    """Whether a row is a dense run: before any cycle, and not one weight at zero."""
    return row["cycle"] == 0 and row["sparsity"] < 1e-6


def name_of(row: Row, varied: Sequence[str], tuned: Sequence[str] = ()) -> str:
    """A trial's last row without its numbers: the named case, the schedule or the method.

    What was `tuned` names nothing: it may differ from sparsity to sparsity.
    """
    if cases := _cases(row, varied):
        return ", ".join(cases)
    if is_dense(row):
        return "Dense"
    method, schedule = row.get("method") or "imp", row.get("schedule") or "none"
    retrained = "no retraining" if schedule == "none" else _as_written(schedule)
    retrained = "IMP" if "retrain.schedule" in tuned else retrained
    if method == "imp":
        return retrained
    if method == "bimp" or row["cycle"] == 0:
        return _as_written(method)
    return f"{_as_written(method)}, then {retrained}"


def label_of(row: Row, varied: Sequence[str], tuned: Sequence[str] = ()) -> str:
    """`name_of` with the epochs and whatever else was searched, except sparsity and seed."""
    name, method = name_of(row, varied, tuned), row.get("method")
    said = SAID.get(str(method), set())
    if _cases(row, varied) or name in ("no retraining", "Dense") or said & {*tuned}:
        said = set()
    else:
        cycles = f"{row['cycle']} cycles of " if method == "imp" and row["cycle"] > 1 else ""
        trained = "epochs" if method == "imp" else "total_epochs"
        name += f" with {cycles}{counted(row[trained], 'epoch')}"
    rest = [f for f in varied if f not in said | ELSEWHERE and not is_case(f)]
    return ", ".join([name, *(phrase(f, row[f]) for f in rest if row.get(f) is not None)])


def colour_field(
    finals: Sequence[Row], varied: Sequence[str], tuned: Sequence[str] = ()
) -> str | None:
    """The searched field to colour by where all share one schedule or method; else None."""
    if len({name_of(row, varied, tuned) for row in finals}) > 1:
        return None
    fields = [f for f in varied if f not in ELSEWHERE and not f.endswith("epochs")]
    few = (f for f in fields if len({repr(row.get(f)) for row in finals}) <= MOST_COLOURS)
    return next(few, None)


def is_case(field: str) -> bool:
    """Whether a searched field is a label for named cases: fields of an experiment have dots."""
    return "." not in field and field not in PLAIN_FIELDS | ELSEWHERE


def phrase(field: str, value: Any) -> str:
    """A field and its value in words: "allocation erk", "3 cycles", "weight decay 0.001".

    Where its condition does not hold, it is as the study has it: "weight decay not searched".
    """
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)[:40]
    shown = "not searched" if value is None else shown
    section, _, leaf = field.rpartition(".")
    if leaf == "cycles" and value is not None:
        return f"{shown} cycles"
    words = f"{section} {leaf}" if leaf in ("epochs", "schedule", "name", "lr") else leaf
    return f"{words.replace('_', ' ').replace('.', ' ')} {shown}"


def counted(count: float, noun: str) -> str:
    """ "1 trial", "12 trials"."""
    return f"{count:.12g} {noun}" + ("" if count == 1 else "s")


def on_test(metric: str) -> str:
    """The metric's twin on the test split: val_loss has test_loss."""
    return f"test_{metric.removeprefix('val_')}" if is_measured(metric) else metric


def is_measured(metric: str) -> bool:
    """Whether it is measured on a split, and so before retraining and on the test split too."""
    return metric.startswith("val_")


def reads_in_percent(metric: str, lower_is_better: Collection[str]) -> bool:
    """Whether people read it in percent, if it is a fraction: an accuracy, and no error or loss."""
    is_higher = metric.removeprefix("val_") not in lower_is_better
    return metric == "sparsity" or (is_measured(metric) and is_higher)


def superlative(metric: str, mode: str) -> str:
    """ "highest validation accuracy", "fewest epochs"."""
    word = {"max": "highest", "min": "fewest" if metric in COUNTED else "lowest"}[mode]
    return f"{word} {metric_name(metric)}"


def metric_name(metric: str) -> str:
    """val_mean_iou is "validation mean IoU", num_nonzero is "non-zero parameters"."""
    if metric in GOALS:
        return GOALS[metric]
    words = metric.split("_")  # val_ is its first word, or follows on pruned_
    first = words.index("val") if "val" in words[:2] else None
    said = ["validation" if n == first else AS_SAID.get(w, w) for n, w in enumerate(words)]
    return " ".join(said)


def with_unit(metric: str) -> str:
    """The name with its unit, for an axis or a heading: "latency, ms"."""
    return ", ".join(filter(None, [metric_name(metric), UNITS.get(metric)]))


def _cases(row: Row, varied: Sequence[str]) -> list[str]:
    """The named cases that a trial is of; none of a case that is not searched in its space."""
    return [str(row[f]) for f in varied if is_case(f) and row.get(f) is not None]


def _as_written(word: str) -> str:
    """As papers write it: ft is FT, rigl is RigL, and cosine stays cosine."""
    own = {"rigl": "RigL"} | {w: w for w in ("constant", "stepped", "cosine", "linear")}
    return own.get(word, word.upper())
