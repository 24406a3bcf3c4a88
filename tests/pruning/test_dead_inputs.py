"""What is left without removed filters: by hand, and as the network that is smaller for real."""

import pytest
import torch
from shaped import multiply_adds
from torch import nn
from torchvision.models import resnet18

from rayprune.models import build_model
from rayprune.pruning.dead_inputs import without_dead_inputs
from rayprune.pruning.flops import cost
from rayprune.pruning.masks import apply_, num_pruned, prunable
from rayprune.pruning.structured import channel_masks, remove_filters


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def all_kept(model):
    parameters = dict(model.named_parameters())
    return {name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in prunable(model)}


def without(model, **filters):
    """Masks without these filters; `conv1=[0]`, and `_0=[1]` for a layer whose name is 0."""
    masks = all_kept(model)
    for name, lost in filters.items():
        masks[f"{name.lstrip('_')}.weight"][lost] = False
    return masks


def half_of_all_filters(model):
    masks = all_kept(model)
    for mask in masks.values():
        if mask.ndim > 2:
            mask[: len(mask) // 2] = False
    return masks


def left(model, masks, *shape):
    return without_dead_inputs(model, masks, torch.zeros(1, *shape))


def costs(model, masks, *shape):
    """As the table has counted so far, and without dead inputs."""
    total, counts = sum(p.numel() for p in model.parameters()), multiply_adds(model, shape)
    return cost(total, counts, masks), cost(total, counts, masks, left(model, masks, *shape))


def dead_inputs(masks, name):
    """The input channels of a layer that none of its weights reads."""
    return (~masks[f"{name}.weight"].transpose(0, 1).flatten(1).any(1)).nonzero().flatten().tolist()


def test_a_chain_by_hand():
    """Each image passes 3x3 places of the first layer, one of the second and of the third."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Conv2d(3, 5, 1)
    )
    masks = without(model, _0=[1], _3=[0, 2])
    found = left(model, masks, 2, 4, 4)
    assert dead_inputs(found, 3) == [1]
    assert dead_inputs(found, 4) == [0, 2]
    assert found["1.bias"].tolist() == [True, False, True, True]
    own, both = costs(model, masks, 2, 4, 4)
    assert own.flops_nonzero == 9 * 3 * 8 + 1 * 36 + 5 * 3
    assert both.flops_nonzero == 9 * 3 * 8 + 1 * 27 + 5 * 1
    # Weights and biases of three layers, and two numbers a channel of the norm.
    assert both.num_nonzero == (24 + 3 + 6) + (27 + 1) + (5 + 5)
    assert both.compression == both.num_parameters / both.num_nonzero
    assert both.sparsity == own.sparsity == (8 + 2 * 36) / (32 + 108 + 15)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.inner = nn.Conv2d(4, 4, 1)
        self.after = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.after((x + self.inner(x)).relu())


def test_a_channel_of_a_sum_is_dead_if_it_is_zero_in_all_summands():
    found = left(Residual(), without(Residual(), stem=[0, 1], inner=[1, 2]), 1, 3, 3)
    assert dead_inputs(found, "inner") == [0, 1]
    assert dead_inputs(found, "after") == [1]


def test_a_norm_behind_a_sum_is_silent_where_all_summands_are_zero():
    model = Residual()
    model.after = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    found = left(model, without(model, stem=[0, 1], inner=[1, 2]), 1, 3, 3)
    assert dead_inputs(found, "after.1") == [1]
    model.after[0] = nn.BatchNorm2d(4, affine=False)  # whose running mean is no parameter
    found = channel_masks(model, without(model, stem=[1], inner=[1]), torch.zeros(1, 1, 3, 3))
    assert set(found) == {"stem.bias", "inner.bias"}


def test_a_flattened_channel_is_several_inputs():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    found = left(model, without(model, _0=[1]), 1, 5, 5)
    assert dead_inputs(found, 3) == [4, 5, 6, 7]


@pytest.mark.parametrize(("activation", "dead"), [(nn.Tanh(), [1]), (nn.Sigmoid(), [])])
def test_a_channel_that_an_activation_lifts_from_zero_is_not_dead(activation, dead):
    model = nn.Sequential(nn.Conv2d(1, 3, 2), activation, nn.Conv2d(3, 2, 1))
    assert dead_inputs(left(model, without(model, _0=[1]), 1, 5, 5), 2) == dead


def test_grouped_and_depthwise_convolutions_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2))
    found = left(model, without(model, _0=[1]), 1, 3, 3)["1.weight"].flatten(1)
    assert found.tolist() == [[True, False]] * 3 + [[True, True]] * 3
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    found = left(model, without(model, _0=[1], _1=[2]), 1, 3, 3)
    # Channel 1 of the depthwise layer reads nothing, but has a bias that the last layer reads.
    assert found["1.weight"].flatten(1).any(1).tolist() == [True, False, False, True]
    assert dead_inputs(found, 2) == [2]


def test_transposed_convolutions_and_shared_weights():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2))
    found = left(model, without(model, _0=[1]), 1, 3, 3)["1.weight"]
    assert found.flatten(1).any(1).tolist() == [True, False, True, True]
    twice = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), twice, nn.ReLU(), twice)
    # The first use reads nothing in channels 1 and 2, the second one in 1.
    masks = without(model, _0=[1, 2], _1=[1])
    assert dead_inputs(left(model, masks, 1, 3, 3), 1) == [1]


def test_where_no_filter_goes_nothing_changes():
    for name in ("resnet20", "small_cnn", "lenet5"):
        model = build_model(name, num_classes=10, in_channels=1)
        masks = {n: torch.rand(mask.shape) > 0.3 for n, mask in all_kept(model).items()}
        assert all(mask.equal(masks[n]) for n, mask in left(model, masks, 1, 28, 28).items())


def test_weights_of_dead_inputs_change_no_output():
    model, example = resnet18(num_classes=10).train(), torch.randn(2, 3, 64, 64)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    masks = all_kept(model)
    for mask in masks.values():
        if mask.ndim > 2:
            mask[torch.rand(len(mask)) < 0.6] = False
    found = without_dead_inputs(model, masks, example)
    assert model.training
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert num_pruned(found) > 1.3 * num_pruned(masks)
    apply_(model.eval(), masks | channel_masks(model, masks, example))
    with torch.no_grad():
        expected = model(example)
        apply_(model, found)
        assert model(example).equal(expected)


def test_half_of_all_filters_of_a_vgg_16():
    model = build_model("vgg16_bn_cifar", num_classes=10)
    own, both = costs(model, half_of_all_filters(model), 3, 32, 32)
    assert own.theoretical_speedup == pytest.approx(2.00, abs=0.005)
    assert both.theoretical_speedup == pytest.approx(3.98, abs=0.005)
    assert both.compression == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("name", ["vgg16_bn_cifar", "small_cnn", "lenet5", "resnet18_cifar"])
def test_a_network_that_is_smaller_for_real_has_what_is_counted(name):
    pytest.importorskip("torch_pruning")
    model, shape = build_model(name, num_classes=10).eval(), (3, 32, 32)
    masks = half_of_all_filters(model)
    smaller = remove_filters(model, masks, torch.randn(2, *shape))
    counted = costs(model, masks, *shape)[1]
    assert counted.flops_nonzero == sum(multiply_adds(smaller, shape).values())
    assert counted.num_nonzero == sum(p.numel() for p in smaller.parameters())


@pytest.mark.parametrize("norm", [lambda c: nn.GroupNorm(4, c), lambda c: nn.GroupNorm(1, c)])
def test_a_norm_over_channels_makes_a_removed_filters_zeros_something_else(norm):
    """With a bias above the mean the channel is positive, and the next layer reads it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    masks = without(model, _0=[0])
    assert dead_inputs(left(model, masks, 3, 12, 12), "3") == []
    nn.init.constant_(model[1].bias, 2)
    apply_(model, masks)
    assert model[:3](torch.rand(1, 3, 12, 12))[:, 0].min() > 0
