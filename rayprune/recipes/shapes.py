"""Made images of different sizes with discs and squares in boxes, for detection.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CLASSES = ("background", "disc", "square")  # torchvision's detectors count objects from 1
Boxes = dict[str, Tensor]
"""boxes (k, 4): x1, y1, x2, y2 in pixels; labels (k,); and scores (k,) where it is a prediction."""


def shapes(num_train: int = 200, num_test: int = 60, seed: int = 0) -> dict[str, Any]:
    """Lists of images (3, 48 to 80, 48 to 80) in [0, 1] with their boxes, one to three in each."""
    generator = torch.Generator().manual_seed(seed)
    parts = {"train": num_train, "test": num_test}
    made = {part: [_sample(generator) for _ in range(num)] for part, num in parts.items()}
    return {**made, "classes": list(CLASSES), "collate": collate}


def collate(samples: list[tuple[Tensor, Boxes]]) -> tuple[list[Tensor], list[Boxes]]:
    """Two lists, as torchvision's detectors take them: images have different sizes."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def _sample(generator: torch.Generator) -> tuple[Tensor, Boxes]:
    """Noise, and shapes on it in a colour of their own that do not touch."""
    height, width = _integer(48, 80, generator), _integer(48, 80, generator)
    image = 0.5 * torch.rand(3, height, width, generator=generator)
    is_taken = torch.zeros(height, width, dtype=torch.bool)
    boxes: list[list[float]] = []
    labels: list[int] = []
    for _ in range(_integer(1, 3, generator)):
        label, radius = _integer(1, 2, generator), _integer(6, 11, generator)
        x = _integer(radius, width - radius - 1, generator)
        y = _integer(radius, height - radius - 1, generator)
        box = slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1)
        if is_taken[box].any():
            continue
        is_taken[box] = True
        colour = 0.3 + 0.2 * torch.rand(3, 1, generator=generator)
        image[:, box[0], box[1]][:, _filled(label, radius)] += colour
        boxes.append([x - radius, y - radius, x + radius + 1, y + radius + 1])
        labels.append(label)
    return image, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


def _filled(label: int, radius: int) -> Tensor:
    """Which pixels of its box a shape has."""
    away = torch.arange(-radius, radius + 1)
    is_disc = away[:, None] ** 2 + away**2 <= radius**2
    return is_disc if CLASSES[label] == "disc" else torch.ones_like(is_disc)


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """Both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
