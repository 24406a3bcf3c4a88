"""One point of a search over all its seeds, and means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from rayprune.results.labels import Row

GOAL_TOLERANCE = 1.1  # a result that keeps a tenth more weights than its goal has missed it


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
    """Last stage of each finished trial, one for each seed."""
    rows: tuple[Row, ...]
    """Every stage of these trials."""
    dense: Mean | None
    """The metric of the dense run it is compared with."""
    change: Mean | None
    """The metric minus that of the dense run of the same seed."""

    def mean(self, column: str) -> Mean | None:
        """A column's mean over the seeds at the last stage, or None where it has no values."""
        return mean_of(row.get(column) for row in self.finals)

    def value(self, column: str) -> float:
        """The same without its spread, of a column that has values."""
        mean = self.mean(column)
        assert mean is not None
        return mean.value

    @cached_property
    def sparsity(self) -> float:
        return self.value("sparsity")

    @cached_property
    def epochs(self) -> float:
        """Epochs of one trial, dense run included."""
        return self.value("total_epochs")

    @property
    def missed_goal(self) -> bool:
        return self.goal is not None and not is_as_sparse(self.sparsity, self.goal)


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


def means_by_cycle(setting: Setting, column: str) -> dict[int, Mean]:
    """A column's mean over the seeds at each cycle that has it; cycle 0 is the dense run."""
    cycles = sorted({row["cycle"] for row in setting.rows})
    means = {k: mean_of(r.get(column) for r in setting.rows if r["cycle"] == k) for k in cycles}
    return {cycle: mean for cycle, mean in means.items() if mean}
