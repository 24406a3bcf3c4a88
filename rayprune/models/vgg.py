"""VGG-16 with batch norm (Simonyan & Zisserman 2015) in the form used for CIFAR."""

from torch import nn

WIDTHS = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]  # channels between poolings


def vgg16_bn_cifar(num_classes: int, in_channels: int) -> nn.Module:
    """Thirteen 3x3 convolutions and, instead of three linear layers, one."""
    layers: list[nn.Module] = []
    for widths in WIDTHS:
        for width in widths:
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            in_channels = width
        layers.append(nn.MaxPool2d(2))
    layers[-1] = nn.AdaptiveMaxPool2d(1)  # what a pooling by 2 makes of 32x32 images
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(in_channels, num_classes))
