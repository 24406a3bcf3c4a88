"""Networks for 28x28 images: LeNet-300-100 and LeNet-5 (LeCun et al. 1998)."""

from torch import nn


def lenet_300_100(num_classes: int, in_channels: int) -> nn.Module:
    """Three linear layers on 28x28 pixels; other sizes are averaged to that."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(28),
        nn.Flatten(),
        nn.Linear(784 * in_channels, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )


def lenet5(num_classes: int, in_channels: int) -> nn.Module:
    """Two 5x5 convolutions and three linear layers, with ReLU and max-pooling as is usual today."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(5),  # what a pooling by 2 makes of 28x28 images
        nn.Flatten(),
        nn.Linear(16 * 25, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
