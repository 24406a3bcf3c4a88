import math

import pytest
import torch

from rayprune.pruning.allocation import (
    emptied_layers,
    lamp_scores,
    layer_counts,
    layer_report,
    prune_weights,
)
from rayprune.pruning.masks import num_pruned, sparsity

SHAPES = {
    "stem.weight": (16, 3, 3, 3),
    "conv.weight": (32, 16, 3, 3),
    "hidden.weight": (64, 128),
    "head.weight": (10, 64),
}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
TOTAL = sum(SIZES.values())
ALLOCATIONS = ["global", "uniform", "uniform_plus", "erk", "lamp"]


def gaussian_weights():
    """Layers of different scale, so that a global threshold is not a uniform one."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) / math.sqrt(shape[0]) for name, shape in SHAPES.items()}


def all_kept(weights):
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def smallest_kept(weights, masks, name):
    return weights[name].abs()[masks[name]].min()


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_cycles_prune_exactly_the_goal_and_give_no_weight_back(allocation):
    weights = gaussian_weights()
    masks = all_kept(weights)
    for goal in (0.0, 0.37, 0.632, 0.8645, 0.912):
        pruned = prune_weights(weights, masks, sparsity=goal, allocation=allocation)
        assert num_pruned(pruned) == round(goal * TOTAL)
        for name, mask in masks.items():
            assert not (pruned[name] & ~mask).any()
            # Inside a layer no weight goes before a smaller one.
            newly = weights[name].abs()[mask & ~pruned[name]]
            if len(newly) and pruned[name].any():
                assert newly.max() <= smallest_kept(weights, pruned, name)
        masks = pruned
        weights = {name: torch.randn_like(w) * masks[name] for name, w in weights.items()}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_pruned_weights_stay_pruned_even_where_a_kept_weight_is_zero(allocation):
    weights = gaussian_weights()
    masks = prune_weights(weights, all_kept(weights), sparsity=0.5, allocation=allocation)
    for name, mask in masks.items():
        weights[name][mask] = 0.0  # the kept ones
        weights[name][~mask] = 9.0
    again = prune_weights(weights, masks, sparsity=0.5, allocation=allocation)
    assert all(again[name].equal(mask) for name, mask in masks.items())


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_goal_already_passed_prunes_nothing_more(allocation):
    weights = gaussian_weights()
    masks = prune_weights(weights, all_kept(weights), sparsity=0.7, allocation=allocation)
    again = prune_weights(weights, masks, sparsity=0.3, allocation=allocation)
    assert all(again[name].equal(mask) for name, mask in masks.items())


def test_global_is_one_threshold_over_all_layers():
    weights = gaussian_weights()
    masks = prune_weights(weights, all_kept(weights), sparsity=0.8, allocation="global")
    gone = max(weights[name].abs()[~mask].max() for name, mask in masks.items())
    assert gone < min(smallest_kept(weights, masks, name) for name in masks)


def test_uniform_prunes_the_same_fraction_of_each_layer():
    weights = gaussian_weights()
    masks = prune_weights(weights, all_kept(weights), sparsity=0.8, allocation="uniform")
    for name, mask in masks.items():
        assert abs(num_pruned({name: mask}) - 0.8 * SIZES[name]) < 1


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_uniform_plus_below_and_above_four_fifths(sparsity):
    counts = layer_counts("uniform_plus", SHAPES, round(sparsity * TOTAL))
    first, last = SIZES["stem.weight"], SIZES["head.weight"]
    fraction = sparsity * TOTAL / (TOTAL - first)
    others, of_last = fraction, fraction
    if fraction > 0.8:
        of_last = 0.8
        others = (sparsity * TOTAL - 0.8 * last) / (TOTAL - first - last)
    assert counts["stem.weight"] == 0
    assert counts["head.weight"] == pytest.approx(of_last * last, abs=1)
    for name in ("conv.weight", "hidden.weight"):
        assert counts[name] == pytest.approx(others * SIZES[name], abs=1)


def test_uniform_plus_refuses_what_it_cannot_meet_up_to_the_last_weight():
    most = TOTAL - SIZES["stem.weight"] - SIZES["head.weight"] // 5
    assert layer_counts("uniform_plus", SHAPES, most)["head.weight"] == 512
    with pytest.raises(
        ValueError, match=r"prune\.sparsity must be at most 0\.95\d\d.*uniform_plus"
    ):
        layer_counts("uniform_plus", SHAPES, most + 1)


def test_uniform_plus_keeps_a_fifth_of_the_last_layer_rounded_up():
    assert layer_counts("uniform_plus", {"a": (10, 10), "b": (7, 3)}, 116) == {"a": 100, "b": 16}


def test_uniform_plus_without_convolutions_has_no_dense_layer():
    shapes = {"a": (30, 78), "b": (10, 30), "c": (10, 10)}
    assert layer_counts("uniform_plus", shapes, 2456) == {"a": 2106, "b": 270, "c": 80}


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        # Of 50 and 40 weights in the convolutions, 100 and 20 in the linear layers, 105 go.
        ((), {"b": 26, "c": 66, "d": 13}),
        (("a",), {"b": 26, "c": 66, "d": 13}),
        (("d",), {"b": 30, "c": 75}),
        (("a", "d"), {"b": 30, "c": 75}),
    ],
)
def test_uniform_plus_spares_no_other_layer_where_the_first_or_the_last_is_ignored(
    ignored, expected
):
    network = {"a": (5, 10, 1), "b": (4, 10, 1), "c": (10, 10), "d": (2, 10)}
    shapes = {name: shape for name, shape in network.items() if name not in ignored}
    counts = layer_counts("uniform_plus", shapes, 105, network=network)
    assert counts == ({} if "a" in ignored else {"a": 0}) | expected


def test_an_ignored_last_layer_leaves_the_next_to_last_no_fifth():
    network = {"a": (10, 10), "b": (10, 10)}
    assert layer_counts("uniform_plus", {"a": (10, 10)}, 95, network=network) == {"a": 95}
    with pytest.raises(ValueError, match=r"at most 0\.8000"):
        layer_counts("uniform_plus", {"a": (10, 10)}, 95)


def test_erk_counts_are_proportional_to_the_sum_of_dimensions_until_a_layer_is_dense():
    counts = layer_counts("erk", SHAPES, TOTAL - 8 * 345)
    kept = {name: SIZES[name] - counts[name] for name in SHAPES}
    assert kept == {name: 8 * sum(shape) for name, shape in SHAPES.items()}
    # A first pass finds only the head over 1; without it the stem is over 1, too.
    counts = layer_counts("erk", SHAPES, round(0.6 * TOTAL))
    kept = {name: SIZES[name] - counts[name] for name in SHAPES}
    assert sum(SHAPES["stem.weight"]) * round(0.4 * TOTAL) / 345 < SIZES["stem.weight"]
    assert (kept["head.weight"], kept["stem.weight"]) == (640, 432)
    rest = TOTAL - round(0.6 * TOTAL) - 640 - 432
    assert kept["conv.weight"] == pytest.approx(rest * 54 / 246, abs=1)
    assert kept["hidden.weight"] == pytest.approx(rest * 192 / 246, abs=1)


@pytest.mark.parametrize("allocation", ["uniform", "uniform_plus", "erk"])
def test_layer_counts_sum_exactly_and_stay_within_what_remains(allocation):
    remaining = {"stem.weight": 432, "conv.weight": 100, "hidden.weight": 8000, "head.weight": 300}
    limits = {name: SIZES[name] - count for name, count in remaining.items()}
    for num_pruned_ in range(sum(limits.values()), TOTAL - 600, 97):
        counts = layer_counts(allocation, SHAPES, num_pruned_, remaining)
        assert list(counts) == list(SHAPES)
        assert sum(counts.values()) == num_pruned_
        assert all(limits[name] <= counts[name] <= SIZES[name] for name in SHAPES)


def test_a_layer_that_lost_more_than_its_share_leaves_the_rest_in_proportion():
    remaining = {"stem.weight": 432, "conv.weight": 100, "hidden.weight": 8192, "head.weight": 640}
    counts = layer_counts("uniform", SHAPES, round(0.7 * TOTAL), remaining)
    kept = {name: SIZES[name] - counts[name] for name in SHAPES}
    assert kept["conv.weight"] == 100
    density = (round(0.3 * TOTAL) - 100) / (TOTAL - SIZES["conv.weight"])
    for name in ("stem.weight", "hidden.weight", "head.weight"):
        assert abs(kept[name] - density * SIZES[name]) < 1


def test_unknown_allocation():
    with pytest.raises(ValueError, match=r"prune\.allocation.*got 'layerwise'"):
        layer_counts("layerwise", SHAPES, 5)


def test_lamp_scores_by_hand():
    scores = lamp_scores(torch.tensor([3.0, -1.0, 2.0, 0.0]))
    assert scores.tolist() == pytest.approx([0, 1 / 14, 4 / 13, 1])
    assert lamp_scores(torch.tensor([2.0, -2.0])).tolist() == [0.5, 1.0]
    assert lamp_scores(torch.zeros(2)).tolist() == [0.0, 0.0]
    assert lamp_scores(torch.zeros(0)).tolist() == []


def test_lamp_is_a_global_threshold_on_its_score_over_the_weights_that_remain():
    weights = {"a": torch.tensor([[1.0, 2.0, 3.0]]), "b": torch.tensor([[40.0, 20.0, 30.0]])}
    # Scores: a 1/14, 4/13, 1; b 400/2900, 900/2500, 1, whatever a layer's scale.
    masks = prune_weights(weights, all_kept(weights), sparsity=3 / 6, allocation="lamp")
    assert masks["a"].tolist() == [[False, False, True]]
    assert masks["b"].tolist() == [[True, False, True]]
    masks = {"a": torch.tensor([[True, True, False]]), "b": torch.tensor([[True, True, True]])}
    # Without the 3 in a: 1/5, 1; so now b's 20 goes first.
    assert prune_weights(weights, masks, sparsity=2 / 6, allocation="lamp")["b"].tolist() == [
        [True, False, True]
    ]


def test_lamp_leaves_the_largest_weight_of_each_layer():
    weights = {name: weight * 1e-8 for name, weight in gaussian_weights().items()}
    weights["head.weight"] *= 1e-6
    masks = prune_weights(weights, all_kept(weights), sparsity=1 - 4 / TOTAL, allocation="lamp")
    assert [row.num_nonzero for row in layer_report(masks)] == [1, 1, 1, 1]


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_diverged_weights_are_refused_and_named(allocation):
    weights = gaussian_weights()
    weights["conv.weight"][3, 1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"diverged: NaN or infinity in conv\.weight"):
        prune_weights(weights, all_kept(weights), sparsity=0.5, allocation=allocation)


def test_nothing_left_to_prune_and_a_percentage_are_refused():
    with pytest.raises(ValueError, match=r"no weights to prune.*prune\.include, or ignore fewer"):
        prune_weights({}, {}, sparsity=0.5, allocation="global")
    weights = gaussian_weights()
    with pytest.raises(ValueError, match=r"prune\.sparsity must be in \[0, 1\], got 90"):
        prune_weights(weights, all_kept(weights), sparsity=90, allocation="global")


def test_report_and_emptied_layers():
    masks = {"a": torch.tensor([[True, False, False, False]]), "b": torch.zeros(2, 2) > 0}
    row = layer_report(masks)[0]
    assert (row.name, row.shape, row.num_weights, row.num_nonzero) == ("a", (1, 4), 4, 1)
    assert row.density == 0.25
    assert emptied_layers(masks) == ["b"]
    assert sparsity(masks) == 7 / 8
