"""What trials are compared by: names of metrics, and of which of them less is better.

A task names what it measures, and a study says ``val_`` and that name. The metrics of a user's task
are known once it has counted something, so until its first epoch only their form is checked.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from rayprune.config.task import FIELD, AnyTask, OwnTask, find_task

if TYPE_CHECKING:
    from rayprune.config.study import Study

Mode = Literal["max", "min"]

VAL = "val_"
COUNTS: dict[str, Mode] = {
    "sparsity": "max",
    "compression": "max",
    "theoretical_speedup": "max",
    "num_nonzero": "min",
    "flops_nonzero": "min",
    "total_epochs": "min",
}
"""What is counted of every result, and which way is better."""
DEPLOYED: dict[str, Mode] = {"latency_ms": "min", "file_mb": "min"}
"""What `search.measure` measures of a trained network as a file, and which way is better."""
MEASURED = {
    "classification": ("loss", "accuracy"),
    "segmentation": ("loss", "accuracy", "mean_iou"),
}
"""Our tasks, and the metrics that they measure."""


@dataclass(frozen=True, kw_only=True)
class Goals:
    """What the trials of a study are compared by, the first goal first; it needs no torch."""

    metrics: tuple[str, ...]
    modes: tuple[Mode, ...]
    """For each goal whether more or less of it is better."""
    within_dense: float | None
    """The loss against dense within which the sparsest is best; None: the best metric."""
    lower_is_better: tuple[str, ...]
    """Metrics of the task of which less is better, without ``val_``."""
    task: str
    """What messages call the task."""

    @property
    def tune_metric(self) -> str:
        """What searchers and schedulers compare by, of one goal."""
        return self.metrics[0] if self.within_dense is None else "goal"

    @property
    def tune_mode(self) -> Mode:
        """Whether more or less of it is better."""
        return self.modes[0] if self.within_dense is None else "max"

    def mistake_in(self, measured: Iterable[str]) -> str:
        """What is wrong with the goals, given what an epoch has measured; empty if nothing is.

        `measured` are names such as val_loss; without any, nothing is known of that epoch.
        """
        names = [name.removeprefix(VAL) for name in measured if name.startswith(VAL)]
        if not names:
            return ""
        for metric in self.metrics:
            if metric.startswith(VAL) and metric.removeprefix(VAL) not in names:
                return not_measured(metric, self.metrics, self.task, names)
        for name in self.lower_is_better:
            if name not in ("loss", *names):
                return (
                    f"lower_is_better names {name}, which is not measured by {self.task}: it has "
                    f"{', '.join(names)}. Write one of these, or leave it out"
                )
        return ""


def goals_of(study: Study) -> Goals:
    """The goals of a study. Imports the module of a user's task; raises its ``ValueError``."""
    search, task = study.search, study.experiment.task
    lower = lower_is_better(task)
    return Goals(
        metrics=search.metrics,
        modes=tuple(_mode(metric, lower) for metric in search.metrics),
        within_dense=search.within_dense,
        lower_is_better=lower,
        task=f"task {task.target if isinstance(task, OwnTask) else task}",
    )


@lru_cache(maxsize=8)
def lower_is_better(task: AnyTask) -> tuple[str, ...]:
    """Names of a task's metrics of which less is better, ``loss`` among them.

    Of a user's task it asks the task, which imports its module. Raises ``ValueError`` where that
    fails, or is no task.
    """
    if not isinstance(task, OwnTask):
        return ("loss",)
    found = find_task(task)
    names: Any = getattr(found, "lower_is_better", None)
    if names is None:
        raise ValueError(
            f"{FIELD} must be a rayprune.Task or return one, got {type(found).__name__} of "
            f"{task.target!r}"
        )
    if isinstance(names, str):  # its letters would be taken for names
        raise ValueError(
            f"{FIELD} {task.target}: lower_is_better must be a collection of names, got "
            f'{names!r}. Write lower_is_better=("{names}",)'
        )
    return tuple(dict.fromkeys(["loss", *names]))


def check_metrics(given: Any) -> None:
    """Raises a ``ValueError`` for what is no metric, or not a list of different ones."""
    metrics = list(given) if isinstance(given, list | tuple) else [given]
    if not metrics:
        raise ValueError("is an empty list. Write val_accuracy")
    for metric in metrics:
        _check_form(metric)
    twice = [metric for metric in dict.fromkeys(metrics) if metrics.count(metric) > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)} twice. Leave one out")


def check_measured(metrics: Sequence[str], task: AnyTask) -> None:
    """Raises a ``ValueError`` for a metric that one of our tasks does not measure."""
    if isinstance(task, OwnTask):
        return
    for metric in metrics:
        if metric.startswith(VAL) and metric.removeprefix(VAL) not in MEASURED[task]:
            raise ValueError(not_measured(metric, metrics, f"task {task}", MEASURED[task]))


def not_measured(metric: str, goals: Sequence[str], task: str, names: Sequence[str]) -> str:
    """The mistake of a goal that `task` does not measure; `names` are what it does."""
    others = [name for name in names if VAL + name not in goals]
    near = difflib.get_close_matches(metric.removeprefix(VAL), others, 1)
    # What is measured beside the loss is what people mean.
    usual = [name for name in others if name != "loss"] or others
    instead = [VAL + name for name in (near or usual)[:1]]
    written = [name for goal in goals for name in (instead if goal == metric else [goal])]
    remedy = f"[{', '.join(written)}]" if len(written) > 1 else "".join(written)
    return (
        f"search.metric: {metric} is not measured by {task}, which has {', '.join(names)}. "
        f"Write search.metric: {remedy}"
    )


def _check_form(metric: Any) -> None:
    if isinstance(metric, str) and (
        metric in COUNTS | DEPLOYED or metric.removeprefix(VAL) not in (metric, "")
    ):
        return
    if isinstance(metric, str) and metric.startswith("test_"):
        instead = f"{VAL}{metric.removeprefix('test_')}"
        raise ValueError(f"the test split chooses nothing, got {metric}. Write {instead}")
    known = ["val_accuracy", "val_loss", *COUNTS, *DEPLOYED]
    word = metric if isinstance(metric, str) else repr(metric)
    near = difflib.get_close_matches(word, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"no metric {word!r}.{hint} There are val_ with the name of one that the task measures, "
        f"such as val_accuracy, {', '.join(COUNTS)}, and with search.measure "
        f"{' and '.join(DEPLOYED)}"
    )


def _mode(metric: str, lower: Collection[str]) -> Mode:
    if mode := (COUNTS | DEPLOYED).get(metric):
        return mode
    return "min" if metric.removeprefix(VAL) in lower else "max"
