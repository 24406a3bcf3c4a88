"""Small nets: known sizes, and no batch norm in the small CNN."""

import pytest
import torch
from torch import nn

from rayprune.models import build_model


@pytest.mark.parametrize(
    ("name", "num_parameters"), [("lenet_300_100", 266_610), ("lenet5", 61_706)]
)
def test_sizes_for_grey_images(name: str, num_parameters: int) -> None:
    model = build_model(name, num_classes=10, in_channels=1)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


def test_the_small_cnn_treats_each_image_alone() -> None:
    model = build_model("small_cnn", num_classes=10, in_channels=1).train()
    images = torch.rand(4, 1, 28, 28)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
