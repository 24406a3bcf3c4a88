"""ResNets: known sizes, and a shortcut that has no parameters."""

import pytest
import torch
from torch import nn

from rayprune.models import build_model
from rayprune.models.resnet import Pad


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_prunable"),
    [
        ("resnet20", 269_722, 268_336),
        ("resnet32", 464_154, 461_872),
        ("resnet44", 658_586, 655_408),
        ("resnet56", 853_018, 848_944),
        ("resnet18_cifar", 11_173_962, 11_164_352),
    ],
)
def test_sizes(name: str, num_parameters: int, num_prunable: int) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=10)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    assert sum(layer.weight.numel() for layer in layers) == num_prunable


def test_padding_takes_every_second_pixel_and_adds_zero_channels() -> None:
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    out = Pad(2, 4)(x)
    assert out.shape == (1, 4, 2, 2)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()
