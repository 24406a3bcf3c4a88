"""A study's trials compared: settings averaged over seeds, the dense line, which one is best."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from rayprune.results.labels import Row, colour_field, is_dense, label_of, name_of, phrase
from rayprune.results.outcome import Status, StudySummary, TrialStatus
from rayprune.results.setting import Mean, Setting, is_as_sparse, mean_of
from rayprune.results.table import read_metadata

DENSE_FIELDS = ("model", "data", "task", "batch_size", "optim", "dense", "precision")
COLUMNS = {"trial", "cycle", "is_final", "key", "part_of", "sparsity", "total_epochs"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A study's trials compared: settings averaged over seeds, the dense line, which is best."""

    summary: StudySummary
    statuses: tuple[TrialStatus, ...]
    """How every trial stands, in the order in which the study made them."""
    rows: tuple[Row, ...]
    """A row for each trial and whole stage that is done, of unfinished trials too."""

    @classmethod
    def from_table(cls, table: pa.Table) -> Comparison:
        """Compare the trials of a results table. Raises ``ValueError`` if it is not one of ours."""
        summary, statuses = read_metadata(table)
        missing = (COLUMNS | {summary.metric}) - {*table.column_names}
        if missing and table.num_rows:
            raise ValueError(f"the results table lacks the columns {', '.join(sorted(missing))}")
        rows = map(_without_nan, table.to_pylist())
        # The beginning of a dense run that was cut in two is no result of its own.
        whole = tuple(row for row in rows if row["part_of"] is None)
        return cls(summary=summary, statuses=statuses, rows=whole)

    @property
    def metric(self) -> str:
        """What settings are ranked by."""
        return self.summary.metric

    def trials(self, status: Status) -> tuple[TrialStatus, ...]:
        """The trials that stand so."""
        return tuple(trial for trial in self.statuses if trial.status == status)

    def reasons(self, status: Status) -> Mapping[str, int]:
        """Why trials stand so: reason -> number of trials."""
        return Counter(trial.reason for trial in self.trials(status))

    @cached_property
    def finals(self) -> tuple[Row, ...]:
        """Last stage of each finished trial."""
        return tuple(row for row in self.rows if row["is_final"])

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All settings with a finished trial, best first; equal ones by fewer epochs."""
        return _settings(self)

    @cached_property
    def has_seeds(self) -> bool:
        """Whether some setting ran with several seeds."""
        return any(len(setting.finals) > 1 for setting in self.settings)

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
        values = [row[self.metric] for row in self.rows if row[self.metric] is not None]
        return "loss" not in self.metric and all(0 <= v <= 1 for v in values)

    @cached_property
    def best(self) -> Row | None:
        """The final row of the trial to ship, or None when no trial has finished.

        The setting with the best mean of the metric over its seeds wins, a tie goes to fewer
        epochs, and of its trials the best one is taken. Settings that missed their goal sparsity
        count only if none kept it. ``["trial"]`` names the trial, ``["key"]`` its snapshot.
        """
        candidates = self.candidates()
        return self.best_seed(candidates[0]) if candidates else None

    def best_seed(self, setting: Setting) -> Row:
        """The final row of a setting's best seed; the setting has a value of the metric."""
        measured = [row for row in setting.finals if row[self.metric] is not None]
        return max(measured, key=lambda row: self.quality(row[self.metric]))

    def level(self, setting: Setting) -> float:
        """The goal sparsity it is compared at; without a goal, the nearest that was kept."""
        if setting.goal is not None:
            return setting.goal
        return min(self.levels, key=lambda g: abs(g - setting.sparsity), default=setting.sparsity)

    def quality(self, value: float) -> float:
        """The metric, turned so that more is better."""
        return value if self.summary.mode == "max" else -value

    def candidates(self, level: float | None = None) -> Sequence[Setting]:
        """Settings at least that sparse, best first; without a level, those that kept their goal.

        A setting that missed the lowest sparsity asked for is no answer, however accurate.
        """
        if level is not None:
            return [s for s in self.sparse if is_as_sparse(s.sparsity, level)]
        lowest = min(self.levels, default=0.0)
        kept = [s for s in self.sparse if not s.missed_goal and is_as_sparse(s.sparsity, lowest)]
        return kept or self.sparse or [s for s in self.settings if s.mean(self.metric)]

    def is_alike(self, one: Setting, other: Setting) -> bool:
        """Whether the ranges mean ± spread overlap: seeds alone may explain the order."""
        a, b = one.mean(self.metric), other.mean(self.metric)
        if a is None or b is None or a.spread is None or b.spread is None:
            return False
        return abs(a.value - b.value) <= a.spread + b.spread

    def alike(self, best: Setting) -> list[Setting]:
        """Other settings with the same goal that are as good within the seeds' spread."""
        same = [s for s in self.settings if s is not best and s.goal == best.goal]
        return [s for s in same if not s.missed_goal and self.is_alike(best, s)]


def _settings(comparison: Comparison) -> tuple[Setting, ...]:
    fields = [name for name in comparison.summary.searched if name != "seed"]
    varied = [f for f in fields if len({repr(row.get(f)) for row in comparison.finals}) > 1]
    groups = _grouped(comparison.finals, fields)
    colour_by = colour_field([row for finals in groups for row in finals], varied)
    dense, rows = _best_dense(comparison), _by_trial(comparison.rows)
    made = [
        Setting(
            label=label_of(finals[0], varied),
            series=phrase(colour_by, finals[0].get(colour_by))
            if colour_by
            else name_of(finals[0], varied),
            goal=_goal(finals[0]),
            finals=tuple(finals),
            rows=tuple(row for final in finals for row in rows[final["trial"]]),
            **_against_dense(comparison.metric, finals, rows, dense),
        )
        for finals in groups
    ]
    return tuple(sorted(_told_apart(made), key=lambda s: _order(comparison, s)))


def _grouped(finals: Sequence[Row], fields: Sequence[str]) -> list[list[Row]]:
    """Finals with equal fields, in the order of the table."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in finals:
        group = groups[tuple(repr(row.get(name)) for name in fields)]
        # The same snapshot is one result, however many trials ended in it.
        if all(row["key"] != other["key"] for other in group):
            group.append(row)
    return list(groups.values())


def _by_trial(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    trials: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        trials[row["trial"]].append(row)
    return trials


def _goal(row: Row) -> float | None:
    goal = row.get("goal_sparsity") or row.get("prune.sparsity")
    return None if goal is None else round(goal, 6)


def _against_dense(
    metric: str,
    finals: Sequence[Row],
    rows: Mapping[str, Sequence[Row]],
    reference: Mapping[int, Row],
) -> dict[str, Mean | None]:
    """The finals against the dense run of each one's own trial, or else that of its seed."""
    own = {row["trial"]: d for row in finals for d in rows[row["trial"]] if is_dense(d)}
    pairs = [
        (row[metric], dense[metric])
        for row in finals
        if (dense := own.get(row["trial"]) or reference.get(row.get("seed", 0)))
        and row[metric] is not None
        and dense[metric] is not None
    ]
    return {
        "dense": mean_of(dense for _, dense in pairs),
        "change": mean_of(value - dense for value, dense in pairs),
    }


def _order(comparison: Comparison, setting: Setting) -> tuple[bool, float, float]:
    mean = setting.mean(comparison.metric)
    return (mean is None, -comparison.quality(mean.value) if mean else 0.0, setting.epochs)


def _best_dense(comparison: Comparison) -> Mapping[int, Row]:
    """Seed -> row of the dense run whose metric is best on the mean over its seeds."""
    metric = comparison.metric
    fields = [f for f in comparison.summary.searched if f.split(".")[0] in DENSE_FIELDS]
    fields += ["epochs", "schedule", "lr_peak", "num_parameters"]
    groups: dict[tuple[str, ...], dict[int, Row]] = defaultdict(dict)
    for row in comparison.rows:
        if is_dense(row) and row[metric] is not None:
            groups[tuple(repr(row.get(f)) for f in fields)][row.get("seed", 0)] = row

    def quality(rows: Mapping[int, Row]) -> float:
        return comparison.quality(statistics.fmean(row[metric] for row in rows.values()))

    return max(groups.values(), key=quality, default={})


def _told_apart(settings: Sequence[Setting]) -> list[Setting]:
    """Labels that two settings share get the trial's name."""
    shared = Counter((s.label, s.goal) for s in settings)
    return [
        replace(s, label=f"{s.label} (trial {s.finals[0]['trial']})")
        if shared[s.label, s.goal] > 1
        else s
        for s in settings
    ]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A diverged run's NaN and infinities are values that are not there."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
