"""Multiply-adds of a network for one sample of a shape."""

import torch
from torch import nn

from rayprune.pruning import flops
from rayprune.pruning.masks import prunable


def multiply_adds(build, input_shape):
    """Of its prunable weights; `build` is a network, or makes one, then on the meta device."""
    if not isinstance(build, nn.Module):
        with torch.device("meta"):
            build = build()

    def forward(model, device):
        model(torch.empty(1, *input_shape, device=device))

    return flops.multiply_adds(build, prunable(build), forward)
