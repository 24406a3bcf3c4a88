import pytest
import torch
from stepping import ByHand
from torch import nn

from rayprune.config.sparsify import RigL
from rayprune.pruning.allocation import layer_counts


def test_fraction_falls_as_a_cosine_to_three_quarters_of_the_run():
    rigl = ByHand([1.0] * 10).begin(RigL(interval=0.125), num_steps=800).sparsifier
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


def test_by_default_connections_change_hundreds_of_times():
    for num_steps in (630, 32_000):
        rigl = ByHand([1.0] * 10).begin(RigL(), num_steps=num_steps).sparsifier
        assert 200 < sum(rigl.fraction(step) > 0 for step in range(num_steps)) < 260
