import random
import time

import pytest

from rayprune.pruning.rounding import at_least, to_multiples


def test_layers_below_their_least_are_raised_and_the_others_pay_for_it():
    kept = {"a": 2.0, "b": 10.0, "c": 20.0}
    sizes = {"a": 10, "b": 4, "c": 2}
    raised = at_least(kept, dict.fromkeys(kept, 4), sizes, 100)
    assert raised == pytest.approx({"a": 4, "b": 7.5, "c": 15})
    assert at_least(kept, dict.fromkeys(kept, 1), sizes, 100) == kept


def test_one_that_falls_below_its_least_by_paying_is_raised_as_well():
    kept, sizes = {"a": 1.0, "b": 5.0, "c": 40.0}, {"a": 10, "b": 1, "c": 1}
    raised = at_least(kept, {"a": 4, "b": 4, "c": 4}, sizes, 55)
    assert raised == pytest.approx({"a": 4, "b": 4, "c": 11})


@pytest.mark.parametrize(
    ("count", "left", "expected"),
    [(13, 64, 16), (11, 64, 8), (1, 64, 8), (3, 5, 5), (15, 12, 12), (9, 12, 8), (64, 64, 64)],
)
def test_a_count_becomes_the_nearest_multiple_of_eight_or_stays_whole(count, left, expected):
    rounded = to_multiples({"a": count}, {"a": left}, {"a": 1}, 8, expected)
    assert rounded == {"a": expected}


def test_layers_change_over_until_the_weights_are_nearest_to_the_goal():
    kept = dict.fromkeys("abcdef", 13.0)  # 16 is nearer for each, and 96 is too many
    rounded = to_multiples(kept, dict.fromkeys(kept, 64), dict.fromkeys(kept, 9), 8, 78 * 9)
    assert sum(rounded.values()) == 80
    assert set(rounded.values()) == {8, 16}
    assert rounded == to_multiples(kept, dict.fromkeys(kept, 64), dict.fromkeys(kept, 9), 8, 702)


def test_an_exact_multiple_is_not_moved_to_make_up_for_others():
    kept, left = {"a": 16.0, "b": 20.5}, {"a": 32, "b": 32}
    assert to_multiples(kept, left, {"a": 1, "b": 1}, 8, 36.5) == {"a": 16, "b": 24}


def off(rounded, sizes, goal):
    return sum(rounded[name] * sizes[name] for name in sizes) - goal


def test_two_layers_change_at_once_where_no_single_one_brings_the_weights_nearer():
    kept, left, sizes = {"a": 11.0, "b": 13.0}, {"a": 64, "b": 64}, {"a": 10, "b": 9}
    assert to_multiples(kept, left, sizes, 8, 8 * 10 + 16 * 9) == {"a": 8, "b": 16}
    assert to_multiples(kept, left, sizes, 8, 16 * 10 + 8 * 9) == {"a": 16, "b": 8}


def test_a_layer_moves_on_by_one_multiple_more_and_not_by_two():
    kept, left = {"a": 20.0}, {"a": 64}
    for goal, count in ((8, 8), (32, 32), (40, 32), (64, 32), (1, 8)):
        assert to_multiples(kept, left, {"a": 1}, 8, goal) == {"a": count}


def test_no_layer_goes_below_one_multiple_or_above_what_is_left():
    kept, left = {"a": 9.0, "b": 9.0}, {"a": 12, "b": 5}
    assert to_multiples(kept, left, {"a": 1, "b": 1}, 8, 0) == {"a": 8, "b": 5}
    assert to_multiples(kept, left, {"a": 1, "b": 1}, 8, 99) == {"a": 12, "b": 5}


def test_within_the_tolerance_nothing_moves_and_the_smallest_change_leads_there():
    kept, left, sizes = {"a": 16.0, "b": 16.0}, {"a": 64, "b": 64}, {"a": 10, "b": 1}
    assert to_multiples(kept, left, sizes, 8, 186, tolerance=10) == {"a": 16, "b": 16}
    # Both are within 12 of the goal: b away by 8 rather than both.
    assert to_multiples(kept, left, sizes, 8, 196, tolerance=12) == {"a": 16, "b": 24}


def test_two_hundred_layers_are_quick_near_their_goal_and_always_the_same():
    random.seed(0)
    names = [str(number) for number in range(200)]
    left = {name: random.choice([16, 32, 64, 128, 256]) for name in names}
    sizes = {name: 9 * random.choice([16, 32, 64, 128, 256]) for name in names}
    kept = {name: left[name] * random.uniform(0.2, 1) for name in names}
    goal = sum(kept[name] * sizes[name] for name in names)
    begin = time.process_time()
    rounded = to_multiples(kept, left, sizes, 8, goal)
    assert time.process_time() - begin < 2
    assert abs(off(rounded, sizes, goal)) <= min(sizes.values()) * 8 / 2
    assert all(abs(count - kept[name]) < 16 for name, count in rounded.items())
    assert rounded == to_multiples(kept, left, sizes, 8, goal)
