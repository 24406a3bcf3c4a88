"""A small convolutional net that a laptop trains in seconds, for quick studies and tests."""

import torch
import torch.nn.functional as F
from torch import nn

FINAL_SIDE = 4  # 25..32 pixels end on a 4x4 map by themselves


def small_cnn(num_classes: int, in_channels: int) -> nn.Module:
    """Three convolutions and two linear layers, tanh, no batch norm.

    156,042 parameters (155,792 prunable) for grey images and 10 classes; made for 28x28 and 32x32,
    other sizes are pooled to the same final map. Fashion-MNIST, 5,400 images, 12 epochs, SGD with
    learning rate 0.1, momentum 0.9, batch 128, weight decay 5e-4: about 87 % at 0.6 CPU-seconds an
    epoch.

    Every operation is smooth (tanh and averages, no ReLU and no maximum), so a rounding error does
    not grow while training: a start perturbed by 1e-7 ends 1e-6 away with the same masks,
    where ReLU and max pooling end with other weights (0.2 away). Runs on one and on several workers
    can therefore be compared. No batch norm, so a result does not depend on how a batch is shared
    out.
    """
    return SmallCNN(num_classes, in_channels)


class SmallCNN(nn.Module):
    """Convolutions of 16, 32 and 64 channels, then 128 hidden units."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * FINAL_SIDE**2, 128)
        self.fc2 = nn.Linear(128, num_classes)
        for module in (self.conv1, self.conv2, self.conv3, self.fc1):
            nn.init.xavier_normal_(module.weight, gain=nn.init.calculate_gain("tanh"))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        # Nearly uniform predictions at the start: the first steps at learning rate 0.1 stay small.
        # Not zero, since some methods choose by magnitude before the first step.
        nn.init.xavier_normal_(self.fc2.weight, gain=0.1)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [batch, channels, height, width]
        x = torch.tanh(self.conv1(images))  # [batch, 16, 14, 14] for 28x28
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2, ceil_mode=True)  # [batch, 32, 7, 7]
        x = torch.tanh(self.conv3(x))  # [batch, 64, 4, 4]
        if x.shape[-2:] != (FINAL_SIDE, FINAL_SIDE):  # its backward is not deterministic on CUDA
            x = F.adaptive_avg_pool2d(x, FINAL_SIDE)
        x = torch.tanh(self.fc1(x.flatten(1)))
        return self.fc2(x)  # [batch, classes]
