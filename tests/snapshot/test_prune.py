"""The prune step: exact goals, masks that only shrink, and the norm that it takes away."""

from copy import deepcopy

import pytest
import torch

from rayprune.config import Prune
from rayprune.plan import Inputs, Stage
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.snapshot import Snapshot, norm_drop, prune


def made_snapshot():
    """A dense convolution, and a linear layer that kept about 3 of 10 of its 140 weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (5, 3, 3, 3), "fc.weight": (7, 20), "fc.bias": (7,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    masks = {
        "conv.weight": torch.ones(5, 3, 3, 3, dtype=torch.bool),
        "fc.weight": torch.rand(7, 20, generator=generator) > 0.7,
    }
    weights["fc.weight"] *= masks["fc.weight"]
    return Snapshot(weights, masks)


def stage(sparsity, *, cycle=1, ignore=()):
    inputs = Inputs(weights="k", masks="k")
    return Stage(
        cycle=cycle,
        epochs=1,
        sparsity=sparsity,
        ignore=ignore,
        schedule="llr",
        key="x",
        inputs=inputs,
    )


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk", "lamp"])
def test_a_prune_step_meets_its_goal_touches_no_weight_and_only_shrinks_masks(allocation):
    before = made_snapshot()
    copy = deepcopy(before)
    after = prune(before, stage(0.9), Prune(sparsity=0.9, allocation=allocation))
    assert list(after) == list(before.masks)
    assert all(torch.equal(before.weights[k], weight) for k, weight in copy.weights.items())
    assert all(torch.equal(before.masks[k], mask) for k, mask in copy.masks.items())
    assert num_pruned(before.masks) < num_pruned(after) == round(0.9 * num_weights(after))
    assert all((after[k] <= before.masks[k]).all() for k in after)


def test_the_smallest_go():
    weight = torch.tensor([[3.0, -1.0], [0.5, -2.0]])
    before = Snapshot({"w": weight}, {"w": torch.ones(2, 2, dtype=torch.bool)})
    after = prune(before, stage(0.5), Prune(sparsity=0.5))
    assert after["w"].tolist() == [[True, False], [False, True]]


def test_uniform_plus_spares_the_networks_ends_and_no_other_where_they_are_ignored():
    shapes = {"a": (4, 5, 1), "b": (4, 5, 1), "c": (10, 10), "d": (10, 10)}
    weights = {name: torch.rand(shape) for name, shape in shapes.items()}
    before = Snapshot(weights, {name: weight >= 0 for name, weight in weights.items()})
    how = Prune(sparsity=0.9, allocation="uniform_plus", ignore=("a", "d"))
    after = prune(before, stage(0.9, ignore=how.ignore), how)
    assert {name: num_pruned({name: mask}) for name, mask in after.items()} == {
        "a": 0,
        "b": 18,
        "c": 90,
        "d": 0,
    }


def test_ignored_weights_stay_and_the_goal_counts_the_others():
    before = made_snapshot()
    after = prune(before, stage(0.9, ignore=("conv",)), Prune(sparsity=0.9))
    assert after["conv.weight"].all()
    assert int((~after["fc.weight"]).sum()) == round(0.9 * 140)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"prune\.ignore must match.*'convv'"):
        prune(made_snapshot(), stage(0.9, ignore=("convv",)), Prune(sparsity=0.9))


def test_the_dense_run_prunes_nothing():
    before = made_snapshot()
    assert prune(before, stage(0.9, cycle=0), Prune()) is before.masks


def test_a_goal_that_is_passed_already_prunes_nothing():
    before = made_snapshot()
    assert num_pruned(before.masks) > 0.1 * num_weights(before.masks)
    after = prune(before, stage(0.1), Prune(sparsity=0.1))
    assert all(torch.equal(after[k], before.masks[k]) for k in before.masks)


def test_norm_drop_on_a_case_done_by_hand():
    # ||W||^2 = 9 + 16 + 144 + 0 = 169; the step removes 3 and 4 of the 3 weights that remain.
    parameters = {"w": torch.tensor([3.0, 4.0, 12.0, 0.0]), "bias": torch.tensor([0.0])}
    before = {"w": torch.tensor([True, True, True, False])}
    after = {"w": torch.tensor([False, False, True, False])}
    assert norm_drop(parameters, before, after) == pytest.approx(5 / 13 / (2 / 3) ** 0.5)
    assert norm_drop(parameters, after, after) == 0


@pytest.mark.parametrize(
    ("q", "d1"),
    [(0.2, 0.146), (0.5, 0.378), (0.8, 0.662), (0.9, 0.789), (0.95, 0.871), (0.99, 0.962)],
)
def test_norm_drop_of_gaussian_weights_has_the_check_values(q, d1):
    weights = {"w": torch.randn(400_000, generator=torch.Generator().manual_seed(0))}
    masks = {"w": torch.ones(400_000, dtype=torch.bool)}
    after = prune(Snapshot(weights, masks), stage(q), Prune(sparsity=q))
    assert norm_drop(weights, masks, after) == pytest.approx(d1, abs=2e-3)
