"""From the results table to settings: trials that differ in nothing but their seed, averaged."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayprune.results.labels import Row, colour_field, is_dense, label_of, name_of, phrase
from rayprune.results.table import TABLE_KEY, read_table

GOAL_TOLERANCE = 1.1  # a result that keeps a tenth more weights than its goal has missed it
STOPPED = "stopped early"  # the message of a trial that the search gave up
DENSE_FIELDS = ("model", "data", "task", "batch_size", "optim", "dense", "precision")


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; `spread` is the sample standard deviation, None for a single seed."""

    value: float
    spread: float | None
    num_seeds: int

    @property
    def low(self) -> float:
        return self.value - (self.spread or 0.0)

    @property
    def high(self) -> float:
        return self.value + (self.spread or 0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the search, over all its seeds."""

    label: str
    """What a person calls it ("ALLR with 3 epochs"); unique together with the goal."""
    series: str
    """What it is coloured by: its schedule, its method or its named case."""
    goal: float | None
    """Goal sparsity; None for methods that find their own."""
    finals: tuple[Row, ...]
    """Last stage of each trial, one for each seed."""
    rows: tuple[Row, ...]
    """Every stage of these trials."""
    dense: Mean | None
    """The metric of the dense run it is compared with."""
    change: Mean | None
    """The metric minus that of the dense run of the same seed."""

    def mean(self, column: str) -> Mean | None:
        """A column's mean over the seeds at the last stage, or None where it has no values."""
        return mean_of(row.get(column) for row in self.finals)

    @cached_property
    def sparsity(self) -> float:
        return _known(self.mean("sparsity")).value

    @cached_property
    def epochs(self) -> float:
        """Epochs of one trial, dense run included."""
        return _known(self.mean("total_epochs")).value

    @property
    def missed_goal(self) -> bool:
        return self.goal is not None and not is_as_sparse(self.sparsity, self.goal)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A study's results: the rows of its table, and what its summary says of the whole."""

    name: str
    metric: str
    mode: str
    searched: tuple[str, ...]
    failed: Mapping[str, str]
    """Trial -> why it has no result."""
    executed_epochs: int
    unique_epochs: int
    naive_epochs: int
    rows: tuple[Row, ...]

    @classmethod
    def from_table(cls, table: pa.Table) -> Results:
        """Read the table; raises ``ValueError`` if it is not a results table."""
        try:
            summary = json.loads((table.schema.metadata or {})[TABLE_KEY])
            fields = {name: summary[name] for name in cls.__annotations__ if name != "rows"}
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                "the table carries no summary of a study: not written by rayprune"
            ) from None
        needed = {"trial", "stage", "is_final", "key", "sparsity", "total_epochs", fields["metric"]}
        missing = needed - {*table.column_names}
        if missing and table.num_rows:
            raise ValueError(f"the results table lacks the columns {', '.join(sorted(missing))}")
        fields["searched"] = tuple(fields["searched"])
        return cls(**fields, rows=tuple(map(_without_nan, table.to_pylist())))

    @cached_property
    def stopped(self) -> tuple[str, ...]:
        """Trials that early stopping ended: without a result, but nothing is wrong with them."""
        return tuple(trial for trial, message in self.failed.items() if message == STOPPED)

    @cached_property
    def errors(self) -> dict[str, str]:
        """Trials that went wrong, and their messages."""
        return {t: message for t, message in self.failed.items() if message != STOPPED}

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All settings with a finished trial, best first; equal ones by fewer epochs."""
        return _settings(self)

    @cached_property
    def sparse(self) -> tuple[Setting, ...]:
        """Of these the ones with zeros and a value of the metric: what is compared."""
        return tuple(s for s in self.settings if s.sparsity > 0 and s.mean(self.metric))

    @cached_property
    def series(self) -> tuple[str, ...]:
        """What settings are coloured by, the best setting's first."""
        return tuple(dict.fromkeys(s.series for s in self.sparse))

    @cached_property
    def dense(self) -> Mean | None:
        """The metric of the study's best dense run: the line to hold."""
        return mean_of(row[self.metric] for row in _best_dense(self).values())

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Goal sparsities that some setting kept, ascending."""
        kept = (s.goal for s in self.settings if s.goal and not s.missed_goal)
        return tuple(sorted({round(goal, 4) for goal in kept}))

    @cached_property
    def is_fraction(self) -> bool:
        """Whether the metric is read in percent."""
        values = [row[self.metric] for row in self.rows if row.get(self.metric) is not None]
        return "loss" not in self.metric and all(0 <= v <= 1 for v in values)

    def level(self, setting: Setting) -> float:
        """The goal sparsity it is compared at; without a goal, the nearest that was kept."""
        if setting.goal is not None:
            return setting.goal
        return min(self.levels, key=lambda g: abs(g - setting.sparsity), default=setting.sparsity)

    def quality(self, value: float) -> float:
        """The metric, turned so that more is better."""
        return value if self.mode == "max" else -value

    def candidates(self, level: float | None = None) -> Sequence[Setting]:
        """Settings at least that sparse, best first; without a level, those that kept their goal.

        A setting that missed the lowest sparsity asked for is no answer, however accurate.
        """
        if level is not None:
            return [s for s in self.sparse if is_as_sparse(s.sparsity, level)]
        lowest = min(self.levels, default=0.0)
        kept = [s for s in self.sparse if not s.missed_goal and is_as_sparse(s.sparsity, lowest)]
        return kept or self.sparse or [s for s in self.settings if s.mean(self.metric)]

    def alike(self, best: Setting, other: Setting) -> bool:
        """Whether the ranges mean ± spread overlap: seeds alone may explain the order."""
        a, b = best.mean(self.metric), other.mean(self.metric)
        if a is None or b is None or a.spread is None or b.spread is None:
            return False
        return abs(a.value - b.value) <= a.spread + b.spread


def read_results(folder: str | Path) -> Results:
    """Results of a study's folder or URI. Raises ``ValueError`` where it holds none of ours."""
    return Results.from_table(read_table(location(folder))[0])


def location(folder: str | Path) -> str:
    """A folder as the file systems take it: absolute, or a URI as it is."""
    return folder if isinstance(folder, str) and "://" in folder else str(Path(folder).resolve())


def is_as_sparse(sparsity: float, goal: float) -> bool:
    """Whether a sparsity is the goal's, in the weights that remain: .01 matters more at .99."""
    return 1 - sparsity <= GOAL_TOLERANCE * (1 - goal)


def mean_of(values: Iterable[float | None]) -> Mean | None:
    """Mean and spread of the values that are there."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    spread = statistics.stdev(known) if len(known) > 1 else None
    return Mean(statistics.fmean(known), spread, len(known))


def best_trial(table: pa.Table) -> dict[str, Any]:
    """The last stage's row of the trial to ship: ``["trial"]`` names it, ``["key"]`` its snapshot.

    The setting with the best mean of the study's metric over its seeds wins, a tie goes to fewer
    epochs, and of its trials the best one is taken. Settings that missed their goal sparsity count
    only if none kept it. Raises ``ValueError`` if no trial has finished.
    """
    results = Results.from_table(table)
    candidates = results.candidates()
    if not candidates:
        raise ValueError("no trial has finished, so there is no best one")
    return dict(best_final(results, candidates[0]))


def best_final(results: Results, setting: Setting) -> Row:
    """The row of a setting's best seed."""
    measured = [row for row in setting.finals if row[results.metric] is not None]
    return max(measured, key=lambda row: results.quality(row[results.metric]))


def stage_means(setting: Setting, column: str) -> dict[int, Mean]:
    """A column's mean over the seeds at each stage that has it."""
    stages = sorted({row["stage"] for row in setting.rows})
    means = {k: mean_of(r.get(column) for r in setting.rows if r["stage"] == k) for k in stages}
    return {stage: mean for stage, mean in means.items() if mean}


def _settings(results: Results) -> tuple[Setting, ...]:
    fields = [name for name in results.searched if name != "seed"]
    trials: dict[str, list[Row]] = defaultdict(list)
    for row in results.rows:
        trials[row["trial"]].append(row)
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in results.rows:
        point = tuple(repr(row.get(name)) for name in fields)
        # The same snapshot is one result, however many trials ended in it.
        if row["is_final"] and all(row["key"] != other["key"] for other in groups[point]):
            groups[point].append(row)
    varied = [f for f in fields if len({repr(row.get(f)) for row in results.rows}) > 1]
    reference = _best_dense(results)
    colour_by = colour_field([row for finals in groups.values() for row in finals], varied)
    made = [
        _setting(results, finals, trials, varied, colour_by, reference)
        for finals in groups.values()
        if finals
    ]
    return tuple(sorted(_told_apart(made), key=lambda s: _order(results, s)))


def _order(results: Results, setting: Setting) -> tuple[bool, float, float]:
    mean = setting.mean(results.metric)
    return (mean is None, -results.quality(mean.value) if mean else 0.0, setting.epochs)


def _setting(
    results: Results,
    finals: Sequence[Row],
    trials: Mapping[str, Sequence[Row]],
    varied: Sequence[str],
    colour_by: str | None,
    reference: Mapping[int, Row],
) -> Setting:
    own = {row["trial"]: d for row in finals for d in trials[row["trial"]] if is_dense(d)}
    changes, compared = [], []
    for row in finals:
        dense = own.get(row["trial"]) or reference.get(row.get("seed", 0))
        if dense and row[results.metric] is not None and dense[results.metric] is not None:
            changes.append(row[results.metric] - dense[results.metric])
            compared.append(dense[results.metric])
    goal = finals[0].get("goal_sparsity") or finals[0].get("prune.sparsity")
    name = name_of(finals[0], varied)
    return Setting(
        label=label_of(finals[0], varied),
        series=phrase(colour_by, finals[0].get(colour_by)) if colour_by else name,
        goal=None if goal is None else round(goal, 6),
        finals=tuple(finals),
        rows=tuple(r for f in finals for r in trials[f["trial"]]),
        dense=mean_of(compared),
        change=mean_of(changes),
    )


def _best_dense(results: Results) -> dict[int, Row]:
    """Seed -> row of the dense run whose metric is best on the mean over its seeds."""
    fields = [f for f in results.searched if f.split(".")[0] in DENSE_FIELDS]
    fields += ["epochs", "schedule", "lr_peak", "num_parameters"]
    groups: dict[tuple[str, ...], dict[int, Row]] = defaultdict(dict)
    for row in results.rows:
        if is_dense(row) and row.get(results.metric) is not None:
            groups[tuple(repr(row.get(f)) for f in fields)][row.get("seed", 0)] = row
    return max(
        groups.values(),
        key=lambda rows: results.quality(
            statistics.fmean(r[results.metric] for r in rows.values())
        ),
        default={},
    )


def _told_apart(settings: Sequence[Setting]) -> list[Setting]:
    """Labels that two settings share get the trial's name."""
    shared = Counter((s.label, s.goal) for s in settings)
    return [
        replace(s, label=f"{s.label} (trial {s.finals[0]['trial']})")
        if shared[s.label, s.goal] > 1
        else s
        for s in settings
    ]


def _known(mean: Mean | None) -> Mean:
    assert mean is not None
    return mean


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A diverged run's NaN and infinities are values that are not there."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
