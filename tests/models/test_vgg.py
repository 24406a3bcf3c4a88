"""VGG-16 for CIFAR: known size."""

import torch
from torch import nn

from rayprune.models import build_model


def test_thirteen_convolutions_and_one_linear_layer() -> None:
    with torch.device("meta"):
        model = build_model("vgg16_bn_cifar", num_classes=10)
    convs = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d)]
    linears = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)]
    assert (len(convs), linears) == (13, [5_120])
    assert sum(convs) + sum(linears) == 14_715_584
