"""Paired differences: values worked out by hand, and laws by simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from rayprune.results.paired import Difference, paired_differences


def by_seed(values: Sequence[float | None]) -> dict[int, float | None]:
    return dict(enumerate(values))


def differences(
    *settings: Sequence[float | None], reference: Sequence[float | None] = (0.0,) * 9
) -> list[Difference]:
    made = paired_differences(list(map(by_seed, settings)), by_seed(reference))
    return [difference for difference in made if difference is not None]


def critical(level: float) -> float:
    """Student's t with two degrees of freedom, two-sided, in closed form."""
    return (1 - level) * math.sqrt(2 / (level * (2 - level)))


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        # mean 2, standard error 1 / sqrt(3), t(2) at 5 % is 4.302653
        ((1.0, 2.0, 3.0), 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)),
        # mean 1, standard error 1, t(1) at 5 % is 12.706205
        ((0.0, 2.0), 1 - 12.706205, 1 + 12.706205),
    ],
)
def test_one_setting_has_students_interval(
    values: tuple[float, ...], low: float, high: float
) -> None:
    (one,) = differences(values)
    assert one.interval == pytest.approx((low, high), abs=1e-5)
    assert not one.is_told_apart
    assert one.num_pairs == len(values)


def test_pairing_takes_out_what_seeds_share() -> None:
    """Seeds differ by tens and settings by two: unpaired, nothing would be seen."""
    (one,) = differences((12.0, 52.1, 91.9), reference=(10.0, 50.0, 90.0))
    assert one.mean == pytest.approx(2)
    assert one.is_told_apart


def test_holm_steps_down() -> None:
    """p = .0027 and .074: the first is compared with .05 / 2, and then the second with .05."""
    far, near = differences((10.0, 11.0, 12.0), (1.0, 2.0, 3.0))
    half = critical(0.025) / math.sqrt(3)
    assert far.interval == pytest.approx((11 - half, 11 + half))
    half = critical(0.05) / math.sqrt(3)
    assert near.interval == pytest.approx((2 - half, 2 + half))
    assert (far.is_told_apart, near.is_told_apart) == (True, False)


def test_after_the_first_that_is_not_rejected_its_level_stays() -> None:
    """p = .035 alone is below .05, and of two not below .025: neither is told apart."""
    (alone,) = differences((2.0, 3.0, 4.0))
    assert alone.is_told_apart
    near, far = differences((1.0, 2.0, 3.0), (2.0, 3.0, 4.0))
    half = critical(0.025) / math.sqrt(3)
    assert near.interval == pytest.approx((2 - half, 2 + half))
    assert far.interval == pytest.approx((3 - half, 3 + half))
    assert not near.is_told_apart and not far.is_told_apart


def test_one_pair_says_nothing_about_chance_and_is_not_counted() -> None:
    single, several = differences((50.0, None, None), (2.0, 3.0, 4.0))
    assert (single.mean, single.num_pairs, single.interval) == (50.0, 1, None)
    assert not single.is_told_apart
    assert several == differences((2.0, 3.0, 4.0))[0]


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert paired_differences([{0: 1.0}, {}], {1: 1.0}) == (None, None)
    assert paired_differences([], {1: 1.0}) == ()


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_value_on_either_side_drops_its_pair(missing: float | None) -> None:
    (one,) = differences((2.0, missing, 4.0, 5.0), reference=(0.0, 0.0, 0.0, missing))
    assert one == differences((2.0, 4.0))[0]
    assert one.num_pairs == 2


def test_equal_results_are_not_told_apart_and_of_a_constant_nothing_is_said() -> None:
    equal, constant = differences((0.0, 0.0, 0.0), (-1.5, -1.5, -1.5))
    assert (equal.interval, equal.is_told_apart) == ((0.0, 0.0), False)
    assert (constant.mean, constant.interval, constant.is_told_apart) == (-1.5, None, False)
    (rounded,) = differences((0.875, 0.865), reference=(0.865, 0.855))
    assert rounded.interval is None and rounded.num_pairs == 2


def test_a_coarse_metric_of_two_seeds_tells_equal_settings_apart_no_more_often() -> None:
    """Accuracies on 2,000 images are often equal, and so may be two differences."""
    draw = random.Random(3)
    wrong = 0
    for _ in range(400):
        settings = [[round(draw.gauss(1600, 18)) / 2000 for _ in range(2)] for _ in range(11)]
        made = differences(*settings[1:], reference=settings[0])
        wrong += any(one.is_told_apart for one in made)
    assert wrong / 400 < 0.09


def test_an_interval_holds_the_truth_in_95_of_100_studies() -> None:
    draw = random.Random(1)
    made = [differences([draw.gauss(1, 2) for _ in range(5)])[0] for _ in range(2000)]
    holds = [one.interval[0] <= 1 <= one.interval[1] for one in made if one.interval]
    assert len(holds) == 2000
    assert sum(holds) / 2000 == pytest.approx(0.95, abs=0.02)


def test_of_ten_equal_settings_none_is_told_apart_in_95_of_100_studies() -> None:
    """They share the reference, so their differences hang together."""
    draw = random.Random(2)
    wrong = 0
    for _ in range(500):
        reference, *settings = ([draw.gauss(0, 1) for _ in range(5)] for _ in range(11))
        wrong += any(d.is_told_apart for d in differences(*settings, reference=reference))
    assert 0 < wrong / 500 <= 0.07


def test_intervals_exclude_0_exactly_where_holm_rejects() -> None:
    """Holm written down once more, from p-values, with other means."""
    from scipy.stats import ttest_1samp

    draw = random.Random(3)
    some = 0
    for _ in range(100):
        effects = [draw.choice([0, 1, 3]) for _ in range(6)]
        settings = [
            [draw.gauss(effect, 1) for _ in range(draw.randint(2, 5))] for effect in effects
        ]
        p = [float(ttest_1samp(values, 0).pvalue) for values in settings]
        rejected, order = set[int](), sorted(range(6), key=lambda n: p[n])
        for rank, number in enumerate(order):
            if p[number] >= 0.05 / (6 - rank):
                break
            rejected.add(number)
        made = differences(*settings)
        assert {n for n, one in enumerate(made) if one.is_told_apart} == rejected
        some += len(rejected)
    assert 0 < some < 600
