"""Norms that read no convolution itself: a channel that nothing writes is silent behind them."""

import copy

import pytest
import torch
from made_trained import as_trained
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.densenet import DenseNet

from rayprune.models import build_model
from rayprune.models.wide_resnet import WideResNet
from rayprune.pruning.masks import apply_, prunable
from rayprune.pruning.structured import channel_masks, evaluate, remove_filters


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def without(model, **filters):
    """Masks without these filters of some convolutions, `inner=[0]`."""
    parameters = dict(model.named_parameters())
    masks = {n: torch.ones(parameters[n].shape, dtype=torch.bool) for n in prunable(model)}
    for name, lost in filters.items():
        masks[f"{name}.weight"][lost] = False
    return masks


def silent(model, masks, size=8):
    """Norm -> its silent channels."""
    found = channel_masks(model, masks, torch.randn(2, 3, size, size))
    return {
        name.removesuffix(".bias"): (~stays).nonzero().flatten().tolist()
        for name, stays in found.items()
        if name.endswith(".bias") and name.removesuffix("bias") + "weight" not in masks
    }


class Stream(nn.Module):
    """A stream that two convolutions write; pre-activation norms read it, and so each other."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.gate, self.head = nn.Parameter(torch.rand(6, 1, 1)), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.stem(x).clone()
        x = x + self.inner(self.norm(x).relu())
        return self.head(self.last(x).relu() * self.gate)


def test_a_channel_is_silent_behind_a_sum_if_no_summand_has_it():
    model = as_trained(Stream())
    masks = without(model, stem=[0, 1, 2], inner=[1, 2, 3])
    assert silent(model, masks) == {"norm": [0, 1, 2], "last": [1, 2]}
    example = torch.randn(2, 3, 8, 8)
    apply_(model, masks | channel_masks(model, masks, example))
    assert (model.head.weight.grad is None) and not model.last.bias[[1, 2]].any()


def test_what_a_silent_norm_makes_zero_is_silent_behind_the_next_one():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.first, self.second, self.third = (nn.BatchNorm2d(4) for _ in range(3))

        def forward(self, x):
            x = self.first(self.stem(x) + 0)
            return self.third(torch.cat([self.second(x.relu())[:, :2], x[:, 2:]], 1))

    model = as_trained(Chain())
    found = silent(model, without(model, stem=[1, 3]))
    assert found == {"first": [1, 3], "second": [1, 3], "third": [1, 3]}


def test_channels_that_are_zero_without_any_mask_stay():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(nn.functional.pad(self.stem(x), (0, 0, 0, 0, 2, 2)))

    model = as_trained(Padded())
    assert silent(model, without(model)) == {}
    assert silent(model, without(model, stem=[1])) == {"norm": [3]}


def test_what_an_activation_lifts_or_another_norm_shifts_from_zero_is_not_silent():
    class Lifted(nn.Module):
        def __init__(self, between):
            super().__init__()
            self.stem, self.between, self.norm = nn.Conv2d(3, 4, 1), between, nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.between(self.stem(x)))

    for between in (nn.Sigmoid(), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, affine=False)):
        model = as_trained(Lifted(between)) if not isinstance(between, nn.BatchNorm2d) else None
        model = model or Lifted(between).eval()
        assert silent(model, without(model, stem=[1])) == {}
    model = as_trained(Lifted(nn.MaxPool2d(2)))
    assert silent(model, without(model, stem=[1])) == {"norm": [1]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_model("resnet20", num_classes=10, in_channels=3),
        lambda: build_model("vgg16_bn_cifar", num_classes=10, in_channels=3),
        lambda: mobilenet_v2(num_classes=4, width_mult=0.25),
    ],
    ids=["resnet20", "vgg16_bn_cifar", "mobilenet_v2"],
)
def test_a_norm_that_reads_a_convolution_goes_with_its_filters_alone(make, monkeypatch):
    """So networks with norms right behind their convolutions train as they always have."""
    model = as_trained(make())
    masks = without(model)
    for mask in masks.values():
        if mask.ndim > 2:
            mask[torch.rand(len(mask)) < 0.5] = False
    monkeypatch.setattr("rayprune.pruning.structured.silent_norms", None)  # is not asked
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    found = silent(model, masks, 32)
    for conv, norm in zip(convolutions, norms, strict=True):
        rows = masks[f"{conv}.weight"].flatten(1).any(1)
        assert found.get(norm, []) == (~rows).nonzero().flatten().tolist()


def test_without_removed_filters_nothing_is_silent():
    model = as_trained(WideResNet(10, 3, width=1))
    masks = {name: torch.rand(mask.shape) < 0.5 for name, mask in without(model).items()}
    assert channel_masks(model, masks, torch.randn(1, 3, 8, 8)) == {}


def test_model_and_random_numbers_stay_as_they_are_and_answers_are_always_the_same():
    model = as_trained(WideResNet(10, 3, width=1)).train()
    model.blocks[0].eval()
    masks = without(model, conv1=[2, 5], **{"blocks.0.conv2": [2], "blocks.1.conv2": [2]})
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = torch.get_rng_state()
    found = channel_masks(model, masks, torch.randn(1, 3, 8, 8, generator=torch.Generator()))
    assert torch.get_rng_state().equal(state)
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    again = channel_masks(model, masks, torch.zeros(4, 3, 8, 8))
    assert all(mask.equal(again[name]) for name, mask in found.items())


def test_removed_channels_of_a_concatenation_are_gone_behind_its_norms():
    pytest.importorskip("torch_pruning")
    sizes = {"growth_rate": 8, "block_config": (2, 2), "num_init_features": 16, "bn_size": 2}
    model, example = as_trained(DenseNet(num_classes=4, **sizes)), torch.randn(2, 3, 32, 32)
    masks = without(model)
    for mask in masks.values():
        if mask.ndim > 2:
            mask[1::2] = False
    smaller = remove_filters(model, masks, example)  # checks that the outputs are equal
    for name, layer in smaller.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels == model.get_submodule(name).out_channels // 2
    apply_(model, masks | channel_masks(model, masks, example))
    torch.testing.assert_close(evaluate(smaller, example), evaluate(model, example))


def test_a_network_that_runs_with_its_own_weights_alone_keeps_its_norms(caplog):
    class Choosy(Stream):
        def forward(self, x):
            assert self.gate.max() < 1e-3, "these are not my weights"
            return super().forward(x)

    model = as_trained(Choosy())
    nn.init.constant_(model.gate, 1e-4)
    assert silent(model, without(model, stem=[1], inner=[1])) == {}
    assert "Choosy does not run with other weights" in caplog.text
