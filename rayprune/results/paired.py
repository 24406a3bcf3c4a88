"""Paired differences of several settings to one reference, with Holm's correction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BySeed = Mapping[int, float | None]  # seed -> value; None or NaN where it is missing
ROUNDING = 1e-9  # .875 - .865 and .865 - .855 are not quite the same
ERROR = 0.05  # the chance that any setting of a family is told apart though none differs


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean over common seeds of (setting - reference), in the metric's own unit."""

    mean: float
    num_pairs: int
    """Seeds that both have a value of."""
    interval: tuple[float, float] | None = None
    """Low and high; None where nothing can be said about chance: with fewer than two pairs, or
    where all of them differ by the same."""

    @property
    def is_told_apart(self) -> bool:
        """Whether chance alone is ruled out: there is an interval, and it does not hold 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class _Sample:
    """The differences of one setting: their mean, its standard error, and two-sided p-value."""

    mean: float
    num_pairs: int
    error: float
    p: float

    @property
    def has_spread(self) -> bool:
        """Whether chance shows in it: in more than rounding, or in no difference at all."""
        return self.mean == 0 or self.error > ROUNDING * abs(self.mean)


def paired_differences(
    settings: Sequence[BySeed], reference: BySeed, error: float = ERROR
) -> tuple[Difference | None, ...]:
    """The difference of each setting to the reference; None where they share no seed.

    With d the differences of the n common seeds, t = mean(d) / (sd(d) / sqrt(n)) has n - 1 degrees
    of freedom. The i-th smallest of m two-sided p-values (i = 1 .. m) is compared with error /
    (m - i + 1), until the first that is not below; m counts settings with two pairs or more. An
    interval is Student's at the level that its p-value was compared with, that of the first one not
    rejected for all after it, so it excludes 0 exactly where Holm's procedure rejects. The chance
    of one false verdict or more among all settings is at most `error`, for a reference that was
    not chosen by the same runs, and each interval is at least as wide as one without correction.
    Differences that are all the same have none: of a few values of a coarse metric, such as an
    accuracy, that is chance. If all are 0, the interval is 0.
    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    pairs = [_pairs(setting, reference) for setting in settings]
    made = [
        Difference(mean=statistics.fmean(values), num_pairs=len(values)) if values else None
        for values in pairs
    ]  # of one pair it stays so
    family = {number: _sample(values) for number, values in enumerate(pairs) if len(values) > 1}
    samples = {number: sample for number, sample in family.items() if sample.has_spread}
    level, is_rejecting = error, True
    for rank, number in enumerate(sorted(samples, key=lambda n: samples[n].p)):
        if is_rejecting:
            level = error / (len(family) - rank)
        difference = _difference(samples[number], level)
        is_rejecting = is_rejecting and difference.is_told_apart
        made[number] = difference
    return tuple(made)


def _pairs(setting: BySeed, reference: BySeed) -> list[float]:
    both = ((setting[seed], reference[seed]) for seed in setting if seed in reference)
    differences = (a - b for a, b in both if a is not None and b is not None)
    return [value for value in differences if math.isfinite(value)]


def _sample(values: Sequence[float]) -> _Sample:
    from scipy.special import stdtr  # slow to import, and only several seeds need it

    mean, count = statistics.fmean(values), len(values)
    error = statistics.stdev(values) / math.sqrt(count)
    if error == 0:
        return _Sample(mean, count, error, 1.0 if mean == 0 else 0.0)
    return _Sample(mean, count, error, 2 * float(stdtr(count - 1, -abs(mean) / error)))


def _difference(sample: _Sample, level: float) -> Difference:
    from scipy.special import stdtrit

    half = -float(stdtrit(sample.num_pairs - 1, level / 2)) * sample.error
    interval = sample.mean - half, sample.mean + half
    return Difference(mean=sample.mean, num_pairs=sample.num_pairs, interval=interval)
