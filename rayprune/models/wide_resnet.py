"""WRN-28-10 (Zagoruyko & Komodakis 2016) as the paper's authors run it.

Their variant has biased convolutions, the stride on a block's second convolution, dropout .3, and a
last batch norm whose running statistics are nine tenths the newest batch's (torch's momentum .9).
Source: models/cifar100.py of github.com/ZIB-IOL/BIMP, which follows meliketoy/wide-resnet.pytorch.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class WideBlock(nn.Module):
    """Batch norm, ReLU, convolution, twice, beside a shortcut, projected where needed."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1)
        changes = stride != 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Three stages of four wide blocks, average pooling and one linear layer."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: int = 10,
        dropout: float = 0.3,
        last_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        blocks = [
            WideBlock(
                before if number == 0 else after,
                after,
                2 if stage > 0 and number == 0 else 1,
                dropout,
            )
            for stage, (before, after) in enumerate(pairwise(channels))
            for number in range(4)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.bn1 = nn.BatchNorm2d(channels[-1], momentum=last_momentum)
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (n, in_channels, h, w) -> (n, num_classes)
        out = F.relu(self.bn1(self.blocks(self.conv1(x))))
        return self.fc(out.mean((2, 3)))


def wrn_28_10(
    num_classes: int, in_channels: int, dropout: float = 0.3, last_momentum: float = 0.9
) -> nn.Module:
    """WRN-28-10: 28 layers deep, ten times as wide as a ResNet.

    `dropout` in [0, 1); `last_momentum` in [0, 1] is that of the last batch norm, the weight of the
    newest batch in its running statistics (.1 for all others).
    """
    return WideResNet(num_classes, in_channels, dropout=dropout, last_momentum=last_momentum)
