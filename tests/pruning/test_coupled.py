"""A channel that all its writers have lost is removed for real, and nothing else changes."""

import sys

import pytest
import torch
from made_trained import as_trained
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.resnet import Bottleneck, ResNet

from rayprune.models import build_model
from rayprune.models.wide_resnet import WideResNet
from rayprune.pruning.allocation import prune_weights
from rayprune.pruning.coupled import channel_graph, coupled_filters
from rayprune.pruning.flops import multiply_adds
from rayprune.pruning.masks import num_pruned, num_weights, prunable, sparsity
from rayprune.pruning.structured import remove_filters


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ours(name):
    return as_trained(build_model(name, num_classes=10, in_channels=3))


def whole(model):
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name].detach() for name in prunable(model)}
    return weights, {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def pruned(model, goal, allocation, coupled=(), masks=None, **how):
    weights, dense = whole(model)
    how = {"pattern": "filter", "sparsity": goal, "allocation": allocation, **how}
    return prune_weights(weights, masks or dense, coupled=coupled, **how)


def num_filters(masks):
    return {n: int(m.flatten(1).any(1).sum()) for n, m in masks.items() if m.ndim > 2}


def channels(model):
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return {f"{name}.weight": layer.out_channels for name, layer in convolutions}


def cost(model, example):
    def forward(copy, device):
        copy(example.to(device))

    counts = multiply_adds(model, prunable(model), forward)
    return sum(counts.values()), sum(parameter.numel() for parameter in model.parameters())


def members(groups):
    return [[name for name, _ in group] for group in groups]


def test_convolutions_that_write_one_stream_go_together():
    model = ours("resnet18_cifar")
    groups = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8))
    assert members(groups)[:2] == [
        ["conv1.weight", "blocks.0.conv2.weight", "blocks.1.conv2.weight"],
        ["blocks.2.conv2.weight", "blocks.2.shortcut.0.weight", "blocks.3.conv2.weight"],
    ]
    assert all(filters == tuple(range(64)) for _, filters in groups[0])
    assert all(parameter.grad_fn is None for parameter in model.parameters())


def test_channels_that_a_shortcut_shifts_are_followed():
    model = ours("resnet20")
    first, second, third = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8))
    rows = {name: (filters[0], filters[-1]) for name, filters in first}
    assert rows["blocks.0.conv2.weight"] == (0, 15)
    assert rows["blocks.3.conv2.weight"] == (8, 23)  # after 8 channels of zeros
    assert rows["blocks.6.conv2.weight"] == (24, 39)
    assert dict(second)["blocks.3.conv2.weight"] == (*range(8), *range(24, 32))
    assert dict(second)["blocks.6.conv2.weight"] == (*range(16, 24), *range(40, 48))
    assert dict(third)["blocks.8.conv2.weight"] == (*range(16), *range(48, 64))


def test_depthwise_convolutions_go_with_the_channels_that_they_read():
    model = mobilenet_v2(num_classes=4, width_mult=0.25)
    found = members(coupled_filters(model, whole(model)[1], torch.randn(1, 3, 32, 32)))
    assert ["features.2.conv.0.0.weight", "features.2.conv.1.0.weight"] in found
    assert ["features.2.conv.2.weight", "features.3.conv.2.weight"] in found


def test_without_sums_nothing_is_coupled():
    model = ours("vgg16_bn_cifar")
    assert coupled_filters(model, whole(model)[1], torch.randn(1, 3, 32, 32)) == ()


def test_layers_without_a_mask_are_in_no_group():
    model = ours("resnet18_cifar")
    masks = {n: m for n, m in whole(model)[1].items() if n != "conv1.weight"}
    found = members(coupled_filters(model, masks, torch.randn(1, 3, 8, 8)))
    assert found[0] == ["blocks.0.conv2.weight", "blocks.1.conv2.weight"]


def test_joint_filters_go_by_their_mean_magnitude():
    weights = {
        "a": torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1),
        "b": torch.tensor([1.0, 4.0, 2.0]).view(3, 1, 1).expand(3, 2, 1),
    }
    dense = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    coupled = ((("a", (0, 1, 2)), ("b", (0, 1, 2))),)  # sums 3 + 1 + 1, 1 + 4 + 4, 2 + 2 + 2
    for allocation in ("global", "uniform"):
        masks = prune_weights(
            weights, dense, sparsity=1 / 3, allocation=allocation, pattern="filter", coupled=coupled
        )
        assert masks["a"].flatten(1).all(1).tolist() == [False, True, True]
        assert masks["b"].flatten(1).all(1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: ours("resnet18_cifar"), 8),
        (lambda: ours("resnet20"), 16),
        (lambda: as_trained(WideResNet(10, 3, width=2)), 16),
        (lambda: as_trained(mobilenet_v2(num_classes=4, width_mult=0.5)), 32),
        (lambda: as_trained(ResNet(Bottleneck, [2, 1, 1, 1], num_classes=4)), 32),
    ],
    ids=["resnet18_cifar", "resnet20", "wide_resnet", "mobilenet_v2", "bottlenecks"],
)
def test_with_coupled_filters_every_convolution_is_as_small_as_its_mask(make, size):
    model, example = make(), torch.randn(1, 3, size, size)
    groups = coupled_filters(model, whole(model)[1], example)
    costs = {}
    for coupled in ((), groups):
        masks = pruned(model, 0.45, "uniform", coupled)
        smaller = remove_filters(model, masks, example)  # checks that the outputs are equal
        costs[bool(coupled)] = cost(smaller, example)
    assert channels(smaller) == num_filters(masks)
    assert costs[True][0] < 0.8 * costs[False][0]
    assert costs[True][1] < 0.8 * costs[False][1]


def test_half_of_all_channels_are_a_quarter_of_the_multiply_adds():
    model, example = ours("resnet18_cifar"), torch.randn(1, 3, 32, 32)
    weights, dense = whole(model)
    half = sum(w.numel() for w in weights.values() if w.ndim > 2) / 2 / num_weights(dense)
    groups = coupled_filters(model, dense, example)
    smaller = remove_filters(model, pruned(model, half, "uniform", groups), example)
    before, after = cost(model, example)[0], cost(smaller, example)[0]
    assert set(channels(smaller).values()) == {32, 64, 128, 256}
    assert (before, after) == (555_422_720, 139_299_328)


def test_padding_that_removal_makes_smaller_keeps_its_channels_in_place():
    model, example = ours("resnet20"), torch.randn(2, 3, 16, 16)
    groups = coupled_filters(model, whole(model)[1], example)
    masks = whole(model)[1]
    for group, lost in zip(groups, ([1, 5], [0, 2, 9], [3, 31]), strict=True):
        for name, filters in group:
            masks[name][[filters[number] for number in lost]] = False
    smaller = remove_filters(model, masks, example)
    pads = [m.padding[-2:] for m in smaller.modules() if isinstance(m, nn.ConstantPad3d)]
    assert pads == [(6, 7), (15, 15)]
    assert [smaller.blocks[n].conv2.out_channels for n in (0, 3, 6)] == [14, 27, 57]


class Volumes(nn.Module):
    """One layer pads the sides of volumes, another one channels of the images they become."""

    def __init__(self, num_zeros):
        super().__init__()
        self.around, self.pad = nn.ConstantPad3d(1, 0.0), None
        self.first, self.second = nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 3)
        if num_zeros:
            self.pad = nn.ConstantPad3d((0, 0, 0, 0, num_zeros, num_zeros), 0.0)
        self.third = nn.Conv2d(8 + 2 * num_zeros, 4, 3)

    def forward(self, x):
        x = self.second(self.around(self.first(self.around(x)).relu())).relu().mean(2)
        return self.third(x if self.pad is None else self.pad(x))


@pytest.mark.parametrize("num_zeros", [0, 2])
def test_a_layer_that_pads_volumes_leaves_channels_as_they_are(num_zeros):
    model, example = Volumes(num_zeros).eval(), torch.randn(2, 3, 6, 6, 6)
    masks = whole(model)[1]
    for name in ("first", "second"):
        masks[f"{name}.weight"][[1, 4]] = False
    smaller = remove_filters(model, masks, example)
    assert (smaller.first.out_channels, smaller.second.in_channels) == (6, 6)
    assert (smaller.second.out_channels, smaller.third.in_channels) == (6, 6 + 2 * num_zeros)
    assert smaller.around.padding == (1,) * 6


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
@pytest.mark.parametrize("is_coupled", [False, True])
def test_rounded_counts_are_multiples_near_the_goal_and_only_shrink(allocation, is_coupled):
    model, masks = ours("resnet18_cifar"), None
    groups = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8)) if is_coupled else ()
    for goal in (0.5, 0.9):
        later = pruned(model, goal, allocation, groups, masks, round_channels=8)
        counts = num_filters(later)
        assert all(count % 8 == 0 and count >= 8 for count in counts.values())
        assert 1 - sparsity(later) < 1.1 * (1 - goal)
        assert sparsity(later) == pytest.approx(goal, abs=0.02)
        assert masks is None or not any((later[n] & ~masks[n]).any() for n in masks)
        assert masks is None or num_pruned(later) > num_pruned(masks)
        masks = later
        for parameter in model.parameters():
            nn.init.normal_(parameter)


def test_rounding_by_one_changes_nothing():
    model = ours("resnet20")
    for allocation in ("global", "uniform"):
        one, none = (pruned(model, 0.5, allocation, **how) for how in ({"round_channels": 1}, {}))
        assert all(one[name].equal(mask) for name, mask in none.items())


@pytest.mark.parametrize(
    ("goal", "counts"),
    [(0.25, (24, 48, 96)), (0.5, (16, 32, 64)), (0.75, (8, 16, 32))],
)
def test_counts_that_are_within_a_thousandth_of_the_goal_stay_what_was_asked_for(goal, counts):
    model = build_model("resnet20", num_classes=10, in_channels=3, kwargs={"width": 2})
    groups = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8))
    masks = pruned(model, goal, "uniform", groups, round_channels=8)
    assert list(num_filters(masks).values()) == [counts[0]] * 7 + [counts[1]] * 6 + [counts[2]] * 6


@pytest.mark.parametrize(
    ("width", "allocation", "goal", "off"),
    [(1, "erk", 0.4, 0.001), (2, "uniform", 0.4, 0.001), (2, "uniform", 0.1, 0.0011)],
)
def test_no_goal_is_missed_by_what_two_layers_together_can_mend(width, allocation, goal, off):
    model = build_model("resnet20", num_classes=10, in_channels=3, kwargs={"width": width})
    groups = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8))
    masks = pruned(model, goal, allocation, groups, round_channels=8)
    assert sparsity(masks) == pytest.approx(goal, abs=off)


def test_what_eight_filters_of_each_layer_allow_is_said():
    model = ours("resnet20")
    with pytest.raises(ValueError, match=r"at most 0\.8\d+ here.*8 filters of each convolution"):
        pruned(model, 0.9, "global", round_channels=8)
    groups = coupled_filters(model, whole(model)[1], torch.randn(1, 3, 8, 8))
    message = (
        r"at most 0\.7\d+ here.*8 filters of each part of a convolution stay. Lower it, or low"
    )
    with pytest.raises(ValueError, match=message + r"er prune\.round_channels, or add linear"):
        pruned(model, 0.9, "global", groups, round_channels=8)
    with pytest.raises(ValueError, match=r"a filter of each convolution stay. Lower it, or add"):
        pruned(model, 0.999, "global")


def test_what_the_library_cannot_read_is_an_error_that_names_it(monkeypatch):
    class Counting(nn.Module):
        def forward(self, x):
            return len(x)  # no tensor at all

    with pytest.raises(ValueError, match="cannot read the graph of Counting"):
        channel_graph(Counting(), torch.randn(1, 3, 2, 2))
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"pip install rayprune\[small\]"):
        channel_graph(Counting(), torch.randn(1, 3, 2, 2))
