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
