"""Residual networks for small images (He et al. 2016): ResNet-20 to 56, and ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Pad(nn.Module):
    """The shortcut without parameters: every second pixel, and zeros for the new channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        missing = channels - in_channels
        before = missing // 2
        # A module, whose padding is a number that removing filters can change.
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, before, missing - before), 0.0)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w) -> (n, c + missing, h / 2, w / 2)
        return self.pad(x[:, :, ::2, ::2])


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels and projects:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        elif in_channels != channels:
            self.shortcut = Pad(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, stages of blocks that halve the image, average pooling and one linear layer.

    `depths` are blocks and `widths` channels of each stage; with `projects`, shortcuts
    between stages have a 1x1 convolution instead of padding.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        projects: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        before = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(before, width, stride, projects=projects))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (n, in_channels, h, w) -> (n, num_classes)
        out = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(out.mean((2, 3)))


def cifar_resnet(depth: int, num_classes: int, in_channels: int, width: int = 1) -> nn.Module:
    """ResNet-`depth` for CIFAR, depth = 6n + 2, with shortcuts that have no parameters.

    Its stages have 16, 32 and 64 channels, times `width`.
    """
    return ResNet(
        [(depth - 2) // 6] * 3,
        [width * channels for channels in (16, 32, 64)],
        num_classes=num_classes,
        in_channels=in_channels,
        projects=False,
    )


def resnet18_cifar(num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-18 with a stem for small images: 3x3 without stride, no pooling."""
    return ResNet(
        [2, 2, 2, 2],
        [64, 128, 256, 512],
        num_classes=num_classes,
        in_channels=in_channels,
        projects=True,
    )
