import math

import pytest
import torch
from torch import nn

from rayprune.pruning.masks import (
    apply_,
    digest,
    keep_largest,
    not_ignored,
    num_pruned,
    num_weights,
    pack_bits,
    prunable,
    sparsity,
    unpack_bits,
)


class Zoo(nn.Module):
    """A layer of every kind, in an order that differs from the alphabet's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.words = nn.Embedding(10, 16)
        self.up = nn.ConvTranspose1d(8, 4, 2)
        self.attention = nn.MultiheadAttention(16, 2)
        self.cross = nn.MultiheadAttention(16, 2, kdim=8, vdim=8)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10, bias=False)
        self.tied = nn.Linear(16, 10, bias=False)
        self.tied.weight = self.words.weight
        self.again = self.head


def test_prunable_are_weights_of_convolution_and_linear_layers_in_model_order():
    assert prunable(Zoo()) == (
        "stem.weight",
        "up.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "cross.q_proj_weight",
        "cross.k_proj_weight",
        "cross.v_proj_weight",
        "cross.out_proj.weight",
        "head.weight",
    )


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ([], ["stem.weight", "block.0.conv.weight", "block.1.conv.weight", "fc.weight"]),
        (["fc"], ["stem.weight", "block.0.conv.weight", "block.1.conv.weight"]),
        (["block.*", "stem.weight"], ["fc.weight"]),
        (["*.0.*"], ["stem.weight", "block.1.conv.weight", "fc.weight"]),
        (["*"], []),
    ],
)
def test_ignore_patterns_match_parameters_or_their_modules(ignore, left):
    names = ["stem.weight", "block.0.conv.weight", "block.1.conv.weight", "fc.weight"]
    assert list(not_ignored(names, ignore)) == left


def test_a_pattern_without_a_match_names_the_field_and_the_nearest_names():
    with pytest.raises(ValueError, match=r"prune\.ignore.*'lyer1'.*layer1") as error:
        not_ignored(["layer1.weight", "fc.weight"], ["fc", "lyer1"])
    assert "fc" not in str(error.value)


def by_sorting(scores, count):
    """What `keep_largest` must give, from one stable sort over everything."""
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    kept = torch.ones(len(flat), dtype=torch.bool)
    kept[flat.argsort(stable=True)[:count]] = False
    parts = kept.split([score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for part, (name, score) in zip(parts, scores.items(), strict=True)
    }


def gaussian(*shape):
    return torch.randn(shape).abs()


SCORES = {
    "distinct": lambda *shape: gaussian(*shape),
    "close": lambda *shape: 1 + gaussian(*shape) * 1e-4,  # one bucket of the upper bits
    "many ties": lambda *shape: torch.randint(0, 4, shape).float(),
    "equal": lambda *shape: torch.full(shape, 0.25),
    "zeros": lambda *shape: torch.zeros(shape),
    "tiny": lambda *shape: gaussian(*shape) * 1e-42,  # subnormal
    "pruned": lambda *shape: gaussian(*shape).masked_fill_(torch.rand(shape) < 0.7, -1),
    "kept zeros": lambda *shape: torch.randint(-1, 2, shape).float(),
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.71, 0.999, 1])
def test_the_smallest_go_exactly_and_ties_by_position(kind, fraction):
    torch.manual_seed(0)
    scores = {name: SCORES[kind](*shape) for name, shape in (("b", (8, 4, 3, 3)), ("a", (50, 7)))}
    count = round(fraction * 638)
    masks = keep_largest(scores, count)
    expected = by_sorting(scores, count)
    assert num_pruned(masks) == count
    assert list(masks) == ["b", "a"]
    assert all(masks[name].equal(expected[name]) for name in scores)


def test_memory_layout_and_precision_do_not_change_the_choice():
    torch.manual_seed(0)
    scores = {"w": torch.randint(0, 3, (4, 4, 3, 3)).float()}
    expected = keep_largest(scores, 50)["w"]
    for other in (
        scores["w"].to(memory_format=torch.channels_last),
        scores["w"].bfloat16(),
        scores["w"].double(),
    ):
        assert keep_largest({"w": other}, 50)["w"].equal(expected)


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf])
def test_scores_that_are_not_finite_say_that_training_diverged(value):
    scores = {"fine": gaussian(9), "broken": gaussian(9)}
    scores["broken"][4] = value
    with pytest.raises(ValueError, match=r"diverged: NaN or infinity in broken\. Lower optim\.lr"):
        keep_largest(scores, 3)


def test_apply_sets_pruned_weights_to_zero_and_touches_nothing_else():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    masks = {name: torch.rand(before[name].shape) < 0.5 for name in prunable(model)}
    apply_(model, masks)
    for name, weight in model.named_parameters():
        expected = before[name].where(masks[name], 0) if name in masks else before[name]
        assert weight.equal(expected)
        assert weight.requires_grad
    apply_(before, masks)
    assert all(before[name].equal(weight) for name, weight in model.named_parameters())


def test_masks_of_another_model_are_refused():
    with pytest.raises(
        ValueError, match=r"masks must name parameters of the model, got fc\.weight"
    ):
        apply_(nn.Linear(2, 2), {"fc.weight": torch.ones(2, 2, dtype=torch.bool)})


def test_masked_weights_become_zero_of_either_sign():
    weights = {"w": torch.tensor([-3.0, 2.0, -1.0])}
    apply_(weights, {"w": torch.tensor([False, False, True])})
    assert weights["w"].signbit().tolist() == [True, False, True]
    assert weights["w"].tolist() == [0.0, 0.0, -1.0]


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 3, 3), (8,), (0, 4)])
def test_packed_bits_give_the_mask_back(shape):
    mask = torch.rand(shape) < 0.5
    bits = pack_bits(mask)
    assert len(bits) == math.ceil(mask.numel() / 8)
    assert unpack_bits(bits, shape).equal(mask)


def test_bits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 4\) has 2 bytes, got 1"):
        unpack_bits(pack_bits(torch.ones(2, 4, dtype=torch.bool)), (4, 4))


def test_the_digest_tells_names_shapes_and_bits_but_not_memory_layouts():
    mask = torch.rand(4, 4, 2, 2) < 0.5
    flipped = mask.clone()
    flipped[3, 3, 1, 1] ^= True
    masks = {"w": mask}
    assert digest(masks) == digest({"w": mask.to(memory_format=torch.channels_last)})
    others = [{"v": mask}, {"w": mask.view(4, 16)}, {"w": flipped}, {**masks, "v": mask}, {}]
    assert len({digest(masks), *(digest(other) for other in others)}) == 6


def test_sparsity_is_the_pruned_fraction_of_all_weights_together():
    masks = {"a": torch.tensor([True, False, False]), "b": torch.ones(7, dtype=torch.bool)}
    assert (num_weights(masks), num_pruned(masks), sparsity(masks)) == (10, 2, 0.2)
    assert sparsity({}) == 0
