import pytest
import torch
from stepping import ByHand
from torch import nn

from rayprune.config.sparsify import RigL
from rayprune.pruning.allocation import layer_counts
from rayprune.sparsifiers.rigl import replace_connections


def test_the_smallest_is_dropped_and_the_largest_gradient_grown():
    weight = torch.tensor([0.1, -0.5, 0.0, 0.0, 0.3])
    kept = torch.tensor([True, True, False, False, True])
    gradient = torch.tensor([0.0, 9.0, -5.0, 2.0, 9.0])
    new = replace_connections(weight, gradient, kept, 1)
    assert new.tolist() == [False, True, True, False, True]


def test_a_dropped_connection_with_the_largest_gradient_comes_back():
    weight, kept = torch.tensor([0.1, 0.5, 0.0]), torch.tensor([True, True, False])
    assert replace_connections(weight, torch.tensor([3.0, 0, 2]), kept, 1).equal(kept)


def test_a_kept_weight_of_zero_counts_as_kept():
    weight, kept = torch.tensor([0.0, 0.0, 0.5]), torch.tensor([False, True, True])
    new = replace_connections(weight, torch.tensor([1.0, 0.0, 0.0]), kept, 1)
    assert new.tolist() == [True, False, True]


def test_fraction_falls_as_a_cosine_to_three_quarters_of_the_run():
    rigl = ByHand([1.0] * 10).begin(RigL(), num_steps=800).sparsifier
    assert rigl.fraction(200) == pytest.approx(0.15 * (1 + 0.5))
    assert rigl.fraction(300) == pytest.approx(0.15)
    assert [step for step in range(800) if rigl.fraction(step)] == [100, 200, 300, 400, 500]


def test_starts_sparse_as_erk_says_by_the_seed():
    def masks(seed_shift: int = 0) -> list[torch.Tensor]:
        torch.manual_seed(seed_shift)  # the masks depend on the method's seed alone
        model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 10))
        kept = ByHand.begin(_Holder(model), RigL(), sparsity=0.8).sparsifier.masks
        for name, mask in kept.items():
            assert not model.get_parameter(name)[~mask].any()
        return list(kept.values())

    shapes = {"a": (20, 30), "b": (10, 20)}

    assert [int((~m).sum()) for m in masks()] == list(layer_counts("erk", shapes, 640).values())
    assert all(a.equal(b) for a, b in zip(masks(), masks(1), strict=True))


class _Holder:
    def __init__(self, model: nn.Module) -> None:
        self.model = model


def test_connections_change_instead_of_a_gradient_step_and_start_without_momentum():
    torch.manual_seed(0)
    case = ByHand(torch.randn(1, 20).tolist())
    options = RigL(interval=2, fraction=1.0, end=1.0)
    training = case.begin(options, num_steps=8, lr=0.1, momentum=0.9, weight_decay=0.1)
    gradient = torch.randn(1, 20).tolist()
    training.step(0, case.loss(gradient))
    training.step(1, case.loss(gradient))
    before, kept = case.layer.weight.detach().clone(), training.sparsifier.masks["0.weight"]
    old = kept.clone()

    training.step(2, case.loss(gradient))

    grown = kept & ~old
    momentum = training.optimizer.state[case.layer.weight]["momentum_buffer"]
    assert grown.any()
    assert int(kept.sum()) == int(old.sum()) == 10
    torch.testing.assert_close(case.layer.weight.detach(), before * kept)
    assert not case.layer.weight[grown].any()
    assert not momentum[grown].any()
    assert momentum[kept & old].all()
