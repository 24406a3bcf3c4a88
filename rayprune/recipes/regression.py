"""Regression: by how many degrees was a garment of Fashion-MNIST turned?

`turned_images` is the data, `regression` the task; the network is any that returns one number.
Study: tune_configs/recipe_regression.yaml.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import rayprune.data
from rayprune import Task

EMBEDDED = Path(rayprune.data.__file__).parent / "fashion_mini"


def turned_images(
    num_train: int = 6000, num_test: int = 2000, largest: float = 45.0, seed: int = 0
) -> dict[str, Any]:
    """Images (n, 1, 28, 28) and the degrees (n,) that each was turned by, up to `largest`.

    They are uint8, so that rayprune normalises them. Flipped images would need other targets:
    write `augment: none`.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        part: _turn(_images(part, num), largest, generator)
        for part, num in (("train", num_train), ("test", num_test))
    }


def _images(part: str, num: int) -> Tensor:
    column = pq.read_table(EMBEDDED / f"{part}.parquet").column("image")[:num]
    images = [np.array(Image.open(io.BytesIO(row["bytes"]))) for row in column.to_pylist()]
    return torch.from_numpy(np.stack(images))[:, None]  # (n, 1, 28, 28) uint8


def _turn(images: Tensor, largest: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    degrees = largest * (2 * torch.rand(len(images), generator=generator) - 1)
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    zero = torch.zeros_like(cos)
    rotations = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rotations, list(images.shape), align_corners=False)
    turned = F.grid_sample(images.float(), grid, align_corners=False)
    return turned.round().to(torch.uint8), degrees


def regression(scale: float = 1.0) -> Task:
    """Mean squared error; rmse and mae in the targets' unit, r2 as the explained part of variance.

    The network predicts in units of `scale`, and the loss is in these too: choose it so that
    targets / scale are about 1, or the first gradients are too long.
    """
    return Task(
        loss=partial(_loss, scale=scale),
        count=partial(_count, scale=scale),
        metrics=partial(_metrics, scale=scale),
        lower_is_better=("loss", "rmse", "mae"),
    )


def _predictions(output: Tensor, targets: Tensor, scale: float) -> Tensor:
    return scale * output.float().view_as(targets)  # (n, 1) has to be (n,), or n*n differences


def _loss(output: Tensor, targets: Tensor, *, scale: float) -> Tensor:
    return F.mse_loss(_predictions(output, targets, scale) / scale, targets / scale)


def _count(output: Tensor, targets: Tensor, *, scale: float) -> Tensor:
    """Sums of squared and absolute errors, of targets and their squares, and how many they are."""
    errors = (_predictions(output, targets, scale) - targets).double()
    targets = targets.double()
    number = torch.ones_like(targets)
    return torch.stack([x.sum() for x in (errors**2, errors.abs(), targets, targets**2, number)])


def _metrics(counts: Tensor, *, scale: float) -> dict[str, float]:
    squares, distances, mean, mean_square = (counts[:4] / counts[4]).tolist()
    variance = mean_square - mean**2
    return {
        "loss": squares / scale**2,
        "rmse": squares**0.5,
        "mae": distances,
        "r2": 1 - squares / variance if variance > 0 else float("-inf"),
    }
