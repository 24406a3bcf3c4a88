import math
import sys

import pytest
import torch
from made_trained import as_trained
from torch import nn
from torchvision.models import resnet18

from rayprune.pruning.allocation import prune_weights, shapes_of
from rayprune.pruning.masks import apply_, num_pruned, prunable, sparsity
from rayprune.pruning.structured import channel_masks, n_of_m_masks, remove_filters


def weights_of(model):
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach() for name in prunable(model)}


def all_kept(weights):
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def prune(model, sparsity, pattern, allocation="global", masks=None):
    weights = weights_of(model)
    masks = masks or all_kept(weights)
    return prune_weights(weights, masks, sparsity=sparsity, allocation=allocation, pattern=pattern)


def plain_cnn():
    return as_trained(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
            nn.Dropout(0.3),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 12, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 4, 10),
        )
    )


def lost_filters(masks):
    return {
        name: int((~mask.flatten(1).any(1)).sum()) for name, mask in masks.items() if mask.ndim > 2
    }


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4), (1, 2)])
@pytest.mark.parametrize("shape", [(6, 16), (6, 8, 3, 3), (4, 8, 5)])
def test_the_largest_n_of_each_m_consecutive_inputs_stay(n, m, shape):
    weights = {"w": torch.randn(shape)}
    mask = prune_weights(
        weights, all_kept(weights), sparsity=1 - n / m, allocation="global", pattern=f"{n}:{m}"
    )["w"]
    # One row for each output and kernel position, inputs last, cut into groups of m.
    groups = weights["w"].abs().movedim(1, -1).reshape(-1, m)
    kept = mask.movedim(1, -1).reshape(-1, m)
    assert (kept.sum(1) == n).all()
    assert (groups.masked_fill(~kept, 9).amin(1) > groups.masked_fill(kept, -1).amax(1)).all()


def test_n_of_m_ties_go_by_position_and_pruned_weights_first():
    weights = {"w": torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 9.0]])}
    masks = {"w": torch.tensor([[True, True, True, True, True, True, True, False]])}
    kept = n_of_m_masks(weights, masks, 2, 4)["w"]
    assert kept.int().tolist() == [[0, 0, 1, 1, 0, 1, 1, 0]]


def test_layers_whose_inputs_do_not_divide_stay_dense():
    model = plain_cnn()
    masks = prune(model, 0.5, "2:4")
    assert masks["0.weight"].all()
    assert [sparsity({n: m}) for n, m in masks.items()] == [0, 0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="inputs are a multiple of 4, got none"):
        prune(nn.Conv2d(3, 8, 3), 0.5, "2:4")


@pytest.mark.parametrize(
    ("pattern", "sparsity", "message"),
    [
        ("2:4", 0.75, "2:4 removes exactly 0.5 .*, got sparsity 0.75"),
        ("filters", 0.5, "unstructured, filter, or n:m .*, got 'filters'"),
    ],
)
def test_patterns_that_cannot_be(pattern, sparsity, message):
    with pytest.raises(ValueError, match=message):
        prune(plain_cnn(), sparsity, pattern)


def test_n_of_m_refuses_diverged_weights():
    with pytest.raises(ValueError, match="diverged: NaN or infinity in w"):
        n_of_m_masks({"w": torch.full((1, 4), math.nan)}, {"w": torch.ones(1, 4) > 0}, 2, 4)


def test_whole_filters_go_the_smallest_in_mean_magnitude_of_all_layers():
    model = plain_cnn()
    masks = prune(model, 0.4, "filter")
    norms = {name: weight.abs().flatten(1).mean(1) for name, weight in weights_of(model).items()}
    lost, kept = [], []
    for name, mask in masks.items():
        rows = mask.flatten(1)
        assert rows.all(1).equal(rows.any(1))
        lost += norms[name][~rows.any(1)].tolist()
        kept += norms[name][rows.any(1)].tolist() if mask.ndim > 2 else []
    assert max(lost) < min(kept)
    assert masks["10.weight"].all()
    largest_filter = 16 * 9
    assert (
        abs(num_pruned(masks) - 0.4 * sum(m.numel() for m in masks.values())) <= largest_filter / 2
    )


def test_filters_by_hand():
    small = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1).expand(4, 1, 2)
    large = torch.tensor([1.5, 2.5, 0.5]).view(3, 1, 1).expand(3, 3, 2)
    weights = {"small": small, "large": large, "head": torch.ones(2, 5)}
    # In order 6, 2, 6, 2, 2 zeros, half way the fewer; the largest filter of each layer stays.
    for zeros, left in {
        5: (4, 2),
        7: (4, 2),
        8: (3, 2),
        13: (3, 1),
        16: (2, 1),
        18: (1, 1),
    }.items():
        masks = prune_weights(
            weights, all_kept(weights), sparsity=zeros / 36, allocation="global", pattern="filter"
        )
        assert tuple(int(masks[n].flatten(1).all(1).sum()) for n in ("small", "large")) == left
        assert masks["small"][-1].all()
        assert masks["large"][1].all()


def test_a_layerwise_share_of_all_filters_leaves_the_largest():
    weights = {"few": torch.tensor([[[3.0]], [[2.0]]]), "many": torch.rand(20, 1, 1)}
    masks = prune_weights(
        weights, all_kept(weights), sparsity=0.8, allocation="uniform", pattern="filter"
    )
    assert masks["few"].flatten().tolist() == [True, False]
    assert int(masks["many"].sum()) == 4


def test_zeros_of_linear_layers_count_for_the_goal_of_filters():
    weights = {"conv": torch.arange(1.0, 9).view(4, 1, 2), "head": torch.ones(2, 4)}
    masks = all_kept(weights)
    masks["head"][0] = False
    pruned = prune_weights(weights, masks, sparsity=0.5, allocation="global", pattern="filter")
    assert pruned["conv"].flatten(1).all(1).tolist() == [False, False, True, True]
    assert pruned["head"].equal(masks["head"])


@pytest.mark.parametrize("allocation", ["uniform", "erk", "uniform_plus"])
def test_layerwise_filters_are_rounded_to_whole_ones(allocation):
    masks = prune(plain_cnn(), 0.4, "filter", allocation)
    total, convolutions = 3576, 216 + 1152 + 1728
    share = round(0.4 * total) / convolutions
    lost = lost_filters(masks)
    if allocation == "uniform":
        assert lost == {"0.weight": round(share * 8), "3.weight": round(share * 16), "7.weight": 6}
    else:
        assert lost["0.weight"] == 0
    # Each layer is within half a filter of its share.
    assert abs(num_pruned(masks) - round(0.4 * total)) <= (27 + 72 + 144) / 2


def test_uniform_plus_prunes_all_filters_alike_where_the_first_convolution_is_ignored():
    weights = {name: torch.rand(10, 4, 1) for name in "abc"}
    kept = all_kept(weights)
    rest = {name: kept[name] for name in "bc"}
    masks = prune_weights(
        {name: weights[name] for name in rest},
        rest,
        sparsity=0.5,
        allocation="uniform_plus",
        pattern="filter",
        network=shapes_of(kept),
    )
    assert lost_filters(masks) == {"b": 5, "c": 5}


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_cycles_of_filter_pruning_only_shrink_and_leave_a_filter(allocation):
    model = plain_cnn()
    first = prune(model, 0.3, "filter", allocation)
    for weight in model.parameters():
        nn.init.normal_(weight)
    second = prune(model, 0.75, "filter", allocation, first)
    assert not any((second[name] & ~mask).any() for name, mask in first.items())
    assert all(mask.any() for mask in second.values())
    assert num_pruned(second) > num_pruned(first)


def test_filters_cannot_reach_what_linear_layers_hold():
    with pytest.raises(ValueError, match=r"prune\.sparsity must be at most 0\.79\d\d.*filter"):
        prune(plain_cnn(), 0.81, "filter")
    with pytest.raises(ValueError, match=r"prune\.allocation must be.*got 'lamp'"):
        prune(plain_cnn(), 0.5, "filter", "lamp")


def test_channel_masks_follow_the_data_not_the_order_of_modules():
    class PreActivation(nn.Module):
        """A block whose second norm, defined first, reads the first convolution."""

        def __init__(self):
            super().__init__()
            self.bn2 = nn.BatchNorm2d(4)
            self.bn1 = nn.BatchNorm2d(4)
            self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
            self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.after = nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
            return self.after(x + y)

    model = PreActivation().train()
    masks = {name: torch.ones(4, 4, 3, 3, dtype=torch.bool) for name in prunable(model)}
    masks["conv1.weight"][1] = False
    masks["conv2.weight"][2] = False
    statistics = model.bn2.running_mean.clone()
    found = channel_masks(model, masks, torch.randn(2, 4, 5, 5))
    assert set(found) == {"conv1.bias", "bn2.weight", "bn2.bias"}
    assert all(mask.tolist() == [True, False, True, True] for mask in found.values())
    assert model.training
    assert model.bn2.training
    assert model.bn2.running_mean.equal(statistics)
    assert not any(module._forward_hooks for module in model.modules())


def masked(model, masks, example):
    apply_(model, masks | channel_masks(model, masks, example))
    with torch.no_grad():
        return model.eval()(example)


def test_removing_filters_of_a_plain_cnn_keeps_the_outputs():
    model, example = plain_cnn(), torch.randn(4, 3, 8, 8)
    masks = prune(model, 0.5, "filter", "uniform")
    smaller = remove_filters(model, masks, example)
    lost = lost_filters(masks)
    assert min(lost.values()) > 0
    assert smaller[0].weight.shape == (8 - lost["0.weight"], 3, 3, 3)
    assert smaller[3].weight.shape == (16 - lost["3.weight"], 8 - lost["0.weight"], 3, 3)
    assert smaller[5].num_features == 16 - lost["3.weight"]
    assert smaller[10].in_features == 4 * (12 - lost["7.weight"])
    torch.testing.assert_close(smaller(example), masked(model, masks, example), rtol=0, atol=1e-5)
    assert type(smaller) is nn.Sequential


@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_removing_filters_of_a_residual_network_keeps_the_outputs(allocation):
    model, example = as_trained(resnet18(num_classes=10)), torch.randn(2, 3, 32, 32)
    masks = prune(model, 0.4, "filter", allocation)
    smaller = remove_filters(model, masks, example)
    lost = lost_filters(masks)
    for name in ("layer1.0.conv1", "layer2.1.conv1", "layer3.0.conv1"):
        before, after = model.get_submodule(name), smaller.get_submodule(name)
        assert after.out_channels == before.out_channels - lost[f"{name}.weight"]
    count = sum(parameter.numel() for parameter in smaller.parameters())
    assert count < 0.75 * sum(parameter.numel() for parameter in model.parameters())
    torch.testing.assert_close(smaller(example), masked(model, masks, example), rtol=0, atol=1e-5)


def test_what_the_library_maps_wrongly_stays_whole():
    class Padded(nn.Module):
        """A shortcut that pads channels on both sides, as CIFAR ResNets have."""

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.inner = nn.Conv2d(4, 8, 3, padding=1)
            self.outer = nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.stem(x).relu()
            y = self.outer(self.inner(x).relu())
            return self.head((y + nn.functional.pad(x, (0, 0, 0, 0, 2, 2))).relu())

    model, example = Padded().eval(), torch.randn(2, 3, 6, 6)
    masks = all_kept(weights_of(model))
    for name in ("stem", "inner", "outer"):
        masks[f"{name}.weight"][1] = False
    smaller = remove_filters(model, masks, example)
    assert smaller.inner.out_channels == 7
    assert smaller.stem.out_channels == 4
    torch.testing.assert_close(smaller(example), masked(model, masks, example), rtol=0, atol=1e-5)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"pip install rayprune\[small\]"):
        remove_filters(plain_cnn(), {}, torch.randn(1, 3, 8, 8))
