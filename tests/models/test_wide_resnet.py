"""WRN-28-10: known size, and the variant's biases, stride, dropout and last batch norm."""

import torch
from torch import nn

from rayprune.models import build_model
from rayprune.models.wide_resnet import WideBlock

OTHER = {"last_momentum": 0.2}


def test_size_for_100_classes() -> None:
    with torch.device("meta"):
        model = build_model("wrn_28_10", num_classes=100)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(p.numel() for p in model.parameters()) == 36_546_980
    assert sum(layer.weight.numel() for layer in layers) == 36_518_832
    assert all(layer.bias is not None for layer in layers)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.3}


def test_only_the_last_batch_norm_forgets_at_once() -> None:
    with torch.device("meta"):
        models = [build_model("wrn_28_10", num_classes=9, kwargs=k) for k in ({}, OTHER)]
    for model, last in zip(models, (0.9, 0.2), strict=True):
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert [norm.momentum for norm in norms] == [0.1] * 24 + [last]
        assert norms[-1] is model.bn1


def test_the_second_convolution_has_the_stride() -> None:
    block = WideBlock(4, 8, 2, 0.0)
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))
    assert block(torch.zeros(1, 4, 8, 8)).shape == (1, 8, 4, 4)
