"""The small CNN: known size, each image on its own, and rounding that does not grow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rayprune.models import build_model
from rayprune.pruning.masks import prunable


def test_size_for_grey_images() -> None:
    model = build_model("small_cnn", num_classes=10, in_channels=1)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 156_042
    assert sum(parameters[name].numel() for name in prunable(model)) == 155_792


def test_each_image_is_treated_alone() -> None:
    model = build_model("small_cnn", num_classes=10, in_channels=1).train()
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def trained(nudge: float, images: Tensor, labels: Tensor) -> Tensor:
    """All weights after 40 steps from a start that `nudge` moved."""
    torch.manual_seed(0)
    model = build_model("small_cnn", num_classes=4, in_channels=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=nudge)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_tiny_nudge_stays_tiny_through_training() -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(24, 1, 28, 28), torch.arange(24) % 4
    distance = (trained(1e-7, images, labels) - trained(0.0, images, labels)).abs().max()
    assert distance < 1e-5
