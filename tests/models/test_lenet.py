"""LeNets: known sizes, and images of another size."""

import pytest
import torch
import torch.nn.functional as F

from rayprune.models import build_model
from rayprune.pruning.masks import prunable


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_prunable"),
    [("lenet_300_100", 266_610, 266_200), ("lenet5", 61_706, 61_470)],
)
def test_sizes_for_grey_images(name: str, num_parameters: int, num_prunable: int) -> None:
    model = build_model(name, num_classes=10, in_channels=1)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == num_parameters
    assert sum(parameters[weight].numel() for weight in prunable(model)) == num_prunable


def test_adaptive_pooling_changes_nothing_for_28x28() -> None:
    first = build_model("lenet_300_100", num_classes=10, in_channels=1)[0]
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(first(images), images)
    last = build_model("lenet5", num_classes=10, in_channels=1)[5]
    maps = torch.rand(2, 16, 10, 10)  # what the second convolution makes of 28x28
    assert torch.equal(last(maps), F.max_pool2d(maps, 2))
