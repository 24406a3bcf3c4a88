"""A study's trials compared: settings averaged over seeds, the dense line, which one is best."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from rayprune.results.front import undominated
from rayprune.results.grouping import (
    against_dense,
    by_trial,
    distinctly_labelled,
    goal_of,
    grouped,
    has_values,
    values_of,
)
from rayprune.results.labels import (
    Row,
    colour_field,
    is_dense,
    is_measured,
    label_of,
    name_of,
    on_test,
    phrase,
    reads_in_percent,
)
from rayprune.results.outcome import Status, StudySummary, TrialStatus
from rayprune.results.paired import BySeed, Difference, paired_differences
from rayprune.results.setting import Mean, Setting, is_as_sparse, mean_of
from rayprune.results.table import read_metadata

DENSE_FIELDS = ("model", "data", "task", "batch_size", "optim", "dense", "precision")
TOLERATED_LOSS = 0.01  # where a study names none: a point of a metric in percent, 1 % of any other
ROUNDING = 1e-9  # .875 - .865 is a little more than .01
COLUMNS = {"trial", "cycle", "is_final", "key", "part_of", "sparsity", "total_epochs"}

Verdict = Literal["better", "alike", "worse"]
"""Of a setting against another: told apart by their paired differences over seeds, or not."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A study's trials compared: settings averaged over seeds, the dense line, which is best."""

    summary: StudySummary
    statuses: tuple[TrialStatus, ...]
    """How every trial stands, in the order in which the study made them."""
    rows: tuple[Row, ...]
    """A row for each trial and whole stage that is done, of unfinished trials too."""
    tuning_rows: tuple[Row, ...] = ()
    """The same of tries, which chose values on seeds of their own and are no result."""

    @classmethod
    def from_table(cls, table: pa.Table) -> Comparison:
        """Compare the trials of a results table. Raises ``ValueError`` if it is not one of ours."""
        summary, statuses = read_metadata(table)
        missing = COLUMNS - {*table.column_names}
        if missing and table.num_rows:
            raise ValueError(f"the results table lacks the columns {', '.join(sorted(missing))}")
        # A user's task may lack a metric that the study compares by: then it has no value.
        lacking = dict.fromkeys({*summary.metrics} - {*table.column_names})
        rows = [_without_nan(row) | lacking for row in table.to_pylist()]
        # The beginning of a dense run that was cut in two is no result of its own.
        whole = [row for row in rows if row["part_of"] is None]
        return cls(
            summary=summary,
            statuses=statuses,
            rows=tuple(row for row in whole if row.get("phase") != "tune"),
            tuning_rows=tuple(row for row in whole if row.get("phase") == "tune"),
        )

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
    def tries(self) -> tuple[Row, ...]:
        """Last stage of each finished try."""
        return tuple(row for row in self.tuning_rows if row["is_final"])

    def tries_of(self, setting: Setting) -> list[Row]:
        """The tries that chose the setting's values."""
        fields = _setting_fields(self)
        return [
            row
            for row in self.tries
            if values_of(row, fields) == values_of(setting.finals[0], fields)
        ]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All settings with a finished trial, best first; equal ones by fewer epochs.

        Best is the metric; where the study names a loss that it tolerates, those within it come
        first, the sparsest before the others, and then the closest to dense. What is within the
        limits of `search.within` comes before what is not.
        """
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
    def ranked(self) -> tuple[Setting, ...]:
        """The same by the metric alone, best first."""
        return tuple(sorted(self.sparse, key=lambda s: _by_metric(self, s)))

    @cached_property
    def front(self) -> tuple[Setting, ...]:
        """The Pareto front of a study with several goals, best in the first one first.

        For a setting on it no other is as good in every goal and better in one; equal ones are all
        on it. Goals are means over seeds, and a setting without a value of one is not on it.
        """
        goals = self.summary.metrics
        if len(goals) < 2:
            return ()
        means = [(s, [s.mean(goal) for goal in goals]) for s in self.ranked]
        known = [(s, [m.value for m in values if m]) for s, values in means if all(values)]
        turned = [
            tuple(
                v if mode == "max" else -v for v, mode in zip(vs, self.summary.modes, strict=True)
            )
            for _, vs in known
        ]
        return tuple(known[number][0] for number in undominated(turned))

    @cached_property
    def sparsest_within(self) -> Setting | None:
        """The sparsest setting within the tolerated loss against dense; None if there is none.

        Of those that are as sparse the best metric wins, then fewer epochs. Settings over a limit
        of `search.within` count only if all are.
        """
        settings = self._preferred(self.ranked)
        within = [s for s in settings if self.is_within(s) and self._step(s) is not None]
        return max(within, key=lambda s: self._step(s) or 0.0, default=None)

    @cached_property
    def series(self) -> tuple[str, ...]:
        """What settings are coloured by, the best setting's first."""
        return tuple(dict.fromkeys(s.series for s in self.sparse))

    @cached_property
    def dense(self) -> Mean | None:
        """The metric of the study's best dense run: the line to hold."""
        return self.dense_mean(self.metric)

    def dense_mean(self, column: str) -> Mean | None:
        """A column's mean over the seeds of that run; None where it has no values."""
        return mean_of(row.get(column) for row in _best_dense(self).values())

    @cached_property
    def has_measurements(self) -> bool:
        """Whether networks were measured as files in a runtime (`search.measure`)."""
        return any(row.get("latency_ms") is not None for row in self.rows)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Goal sparsities that some setting kept, ascending."""
        kept = (s.goal for s in self.settings if s.goal and not s.missed_goal)
        return tuple(sorted({round(goal, 4) for goal in kept}))

    @cached_property
    def is_fraction(self) -> bool:
        """Whether the metric is read in percent."""
        return self.is_in_percent(self.metric)

    def is_in_percent(self, column: str) -> bool:
        """Whether a metric or a goal is read in percent."""
        values = [row[column] for row in self.rows if row.get(column) is not None]
        is_read_so = reads_in_percent(column, self.summary.lower_is_better)
        return is_read_so and all(0 <= v <= 1 for v in values)

    @cached_property
    def is_brought(self) -> bool:
        """Whether every dense network was trained elsewhere, and here only measured."""
        dense = [row for row in self.rows if is_dense(row)]
        return bool(dense) and all(row["epochs"] == 0 for row in dense)

    @cached_property
    def has_d1_alone(self) -> bool:
        """Whether ALLR went by d1 alone: nothing says how long a brought network was trained."""
        allr = (row for row in self.rows if row["cycle"] > 0 and row.get("schedule") == "allr")
        return any(row.get("d1") is not None and row.get("d2") is None for row in allr)

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics of the validation split that have values, of trials without a result too."""
        names = dict.fromkeys(name for row in self.rows for name in row if is_measured(name))
        return tuple(n for n in names if any(row.get(n) is not None for row in self.rows))

    @cached_property
    def best(self) -> Row | None:
        """The final row of the trial to ship, or None when no trial has finished.

        The setting with the best mean of the metric over its seeds wins, a tie goes to fewer
        epochs, and of its trials the best one is taken. Settings that missed their goal sparsity
        count only if none kept it. Of several goals the first one alone decides; the others are
        for the front. Where the study names a loss that it tolerates (`search.within_dense`), the
        sparsest setting within it wins instead, by the sparsity that it reached, or the closest to
        dense if none is within. In any case a setting over a limit of `search.within` counts only
        if all are, and so does a seed. ``["trial"]`` names the trial, ``["key"]`` its snapshot.
        """
        candidates = self.candidates()
        return self.best_seed(candidates[0]) if candidates else None

    def best_seed(self, setting: Setting) -> Row:
        """The final row of a setting's best seed; the setting has a value of the metric.

        A mean within the limits of `search.within` hides seeds that are not: one that is within
        all of them itself comes first.
        """
        known = [row for row in setting.finals if row[self.metric] is not None]
        limits = self.summary.within.items()
        within = [
            row for row in known if all(_is_at_most(row.get(c), limit) for c, limit in limits)
        ]
        return max(within or known, key=lambda row: self.quality(row[self.metric]))

    def level(self, setting: Setting) -> float:
        """The goal sparsity it is compared at; without a goal, the nearest that was kept."""
        if setting.goal is not None:
            return setting.goal
        return min(self.levels, key=lambda g: abs(g - setting.sparsity), default=setting.sparsity)

    def quality(self, value: float) -> float:
        """The metric, turned so that more is better."""
        return value if self.summary.mode == "max" else -value

    def candidates(self, level: float | None = None) -> Sequence[Setting]:
        """Settings that may be best, best first; with a level those at least as sparse, by metric.

        A setting that missed the lowest sparsity asked for is no answer, however accurate, unless
        the study asks for the sparsest within a loss. What is over a limit of `search.within` is
        none unless all are.
        """
        if level is not None:
            return self._preferred([s for s in self.ranked if is_as_sparse(s.sparsity, level)])
        sparse = self._preferred(self.sparse)
        if self.summary.within_dense is not None and sparse:
            return sparse
        lowest = min(self.levels, default=0.0)
        kept = [s for s in sparse if not s.missed_goal and is_as_sparse(s.sparsity, lowest)]
        return kept or sparse or [s for s in self.settings if s.mean(self.metric)]

    def within_limits(self, setting: Setting) -> bool | None:
        """Whether its means over seeds are within every limit of `search.within`.

        None where that is not known, as a seed was not measured; without limits everything is.
        """
        sides = [self._side(setting, column) for column in self.summary.within]
        if False in sides:
            return False
        return None if None in sides else True

    def is_within_limits(self, setting: Setting) -> bool:
        """The same, where what is not known to be within is not."""
        return self.within_limits(setting) is True

    @cached_property
    def has_within_limits(self) -> bool:
        """Whether a setting that may be best is known to be within the limits."""
        return any(map(self.is_within_limits, self.sparse or self.settings))

    @cached_property
    def is_unsure_of_limits(self) -> bool:
        """Whether of a setting that may be best it is not known."""
        return any(self.within_limits(s) is None for s in self.sparse or self.settings)

    def _side(self, setting: Setting, column: str) -> bool | None:
        """On which side of one limit its mean is; None where a seed was not measured."""
        mean = setting.mean(column)
        if mean is None or mean.num_seeds < len(setting.finals):
            return None
        return mean.value <= self.summary.within[column]

    def _preferred(self, settings: Sequence[Setting]) -> Sequence[Setting]:
        """Those within the limits, or all where none is."""
        return [s for s in settings if self.is_within_limits(s)] or settings

    def is_within(self, setting: Setting) -> bool:
        """Whether it loses no more against dense than is tolerated: `within_dense`, or a point."""
        if setting.change is None or setting.dense is None:
            return False
        tolerated = self.summary.within_dense
        if tolerated is None:
            # Half a tenth more, so that what reads as one point is one point.
            scale = 1.0 if self.is_fraction else abs(setting.dense.value)
            return self.quality(setting.change.value) >= -1.05 * TOLERATED_LOSS * scale
        return self.quality(setting.change.value) >= -tolerated - ROUNDING

    def _step(self, setting: Setting) -> float | None:
        """Sparsity in steps, on each of which the metric decides.

        It is the highest goal that was kept, None below all of them, or the sparsity itself where
        the study asks for the sparsest.
        """
        if self.summary.within_dense is not None:
            return round(setting.sparsity, 4)
        reached = (goal for goal in self.levels if is_as_sparse(setting.sparsity, goal))
        return max(reached, default=None)

    @cached_property
    def compared_by(self) -> str:
        """What differences to the reference are of: the metric on the test split, if it is there.

        Settings are ranked on the validation split, so that what ranks first there has luck in its
        favour. On the test split it has none of that split's, but still that of its training runs.
        """
        test = on_test(self.metric)
        is_there = any(row.get(test) is not None for row in self.finals)
        return test if is_measured(self.metric) and is_there else self.metric

    def equals_of(self, setting: Setting) -> list[Setting]:
        """The other settings of its goal sparsity, best first by the metric.

        None for one without a goal; those that missed it are nobody's equals.
        """
        if setting.goal is None or setting.missed_goal:
            return []
        return [s for s in self._kept(setting.goal) if s is not setting]

    @cached_property
    def references(self) -> Mapping[float, Setting]:
        """Goal sparsity -> what its settings are compared with; none where no setting fits.

        It is the one that the study names (`search.reference`), the best by the metric of several,
        or the best of all where it names none.
        """
        wanted = self.summary.reference
        fitting = {
            level: [s for s in self._kept(level) if has_values(s.finals[0], wanted)]
            for level in self.levels
        }
        return {level: settings[0] for level, settings in fitting.items() if settings}

    def reference(self, level: float) -> Setting | None:
        """What settings of a goal sparsity are compared with; None if no setting is."""
        return self.references.get(round(level, 4))

    @cached_property
    def has_intervals(self) -> bool:
        """Whether something can be said about chance: two seeds or more of some difference."""
        return any(difference.interval for difference in self._differences.values())

    def differences_to(self, reference: Setting) -> list[tuple[Setting, Difference | None]]:
        """Its equals with their differences to it; Holm's correction is over all of these."""
        equals = self.equals_of(reference)
        values = [self._by_seed(setting) for setting in equals]
        return [*zip(equals, paired_differences(values, self._by_seed(reference)), strict=True)]

    def difference(self, setting: Setting) -> Difference | None:
        """Its difference to the reference of its goal sparsity.

        None for the reference itself, one that missed its goal, and one without a common seed.
        """
        return self._differences.get(id(setting))

    def verdict(self, difference: Difference | None) -> Verdict | None:
        """What a difference says of its setting; None where seeds are too few to say anything."""
        if difference is None or difference.interval is None:
            return None
        if not difference.is_told_apart:
            return "alike"
        return "better" if self.quality(difference.mean) > 0 else "worse"

    def alike(self, best: Setting) -> list[Setting]:
        """Its equals that cannot be told apart from it."""
        return [s for s, d in self.differences_to(best) if self.verdict(d) == "alike"]

    def _kept(self, level: float) -> Sequence[Setting]:
        """Settings with this goal that kept it, best first by the metric."""
        return self._by_level.get(round(level, 4), ())

    @cached_property
    def _by_level(self) -> Mapping[float, Sequence[Setting]]:
        levels: dict[float, list[Setting]] = defaultdict(list)
        for setting in self.ranked:
            if setting.goal is not None and not setting.missed_goal:
                levels[round(setting.goal, 4)].append(setting)
        return levels

    def _by_seed(self, setting: Setting) -> BySeed:
        return {row.get("seed", 0): row.get(self.compared_by) for row in setting.finals}

    @cached_property
    def _differences(self) -> Mapping[int, Difference]:
        """By the setting's identity."""
        pairs = (pair for r in self.references.values() for pair in self.differences_to(r))
        return {id(setting): difference for setting, difference in pairs if difference}


def _settings(comparison: Comparison) -> tuple[Setting, ...]:
    fields, tuned = _setting_fields(comparison), comparison.summary.tuned
    varied = [f for f in fields if len({repr(row.get(f)) for row in comparison.finals}) > 1]
    groups = grouped(comparison.finals, fields)
    colour_by = colour_field([row for finals in groups for row in finals], varied, tuned)
    dense, rows = _best_dense(comparison), by_trial(comparison.rows)
    made = [
        Setting(
            label=label_of(finals[0], varied, tuned),
            series=phrase(colour_by, finals[0].get(colour_by))
            if colour_by
            else name_of(finals[0], varied, tuned),
            goal=goal_of(finals[0]),
            finals=tuple(finals),
            rows=tuple(row for final in finals for row in rows[final["trial"]]),
            **against_dense(comparison.metric, finals, rows, dense),
        )
        for finals in groups
    ]
    return tuple(sorted(distinctly_labelled(made), key=lambda s: _best_first(comparison, s)))


def _best_first(comparison: Comparison, setting: Setting) -> tuple[float, ...]:
    by_metric = _by_metric(comparison, setting)
    has_no_value, *_ = by_metric
    is_over = not comparison.is_within_limits(setting)
    if comparison.summary.within_dense is None:
        return (has_no_value, is_over, *by_metric)
    has_no_zeros = setting.sparsity <= 0  # a dense run is within any loss, and no answer
    last = (has_no_value, has_no_zeros, is_over, setting.change is None)
    if comparison.is_within(setting):
        return (*last, False, -round(setting.sparsity, 4), *by_metric)
    loss = -comparison.quality(setting.change.value) if setting.change else 0.0
    return (*last, True, loss, *by_metric)


def _by_metric(comparison: Comparison, setting: Setting) -> tuple[float, ...]:
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


def _setting_fields(comparison: Comparison) -> list[str]:
    """The searched fields in which settings differ: not what was chosen for each of them."""
    others = {"seed", "phase", *comparison.summary.tuned}
    return [name for name in comparison.summary.searched if name not in others]


def _is_at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A diverged run's NaN and infinities are values that are not there."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
