"""How images become inputs: what `auto` stands for, and by which levels they are normalised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rayprune import config
from rayprune.config.preprocessing import Preprocessing
from rayprune.data.reading import Reading
from rayprune.data.splits import Samples, channel_statistics

# Levels 0 to 255; what torchvision's and timm's weights were trained with.
IMAGENET_MEAN = 255 * torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
IMAGENET_STD = 255 * torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


def with_size(data: config.Data, trained: Preprocessing | None) -> config.Data:
    """The data with what `auto` stands for in how images are resized, where it is known.

    Raises a ``ValueError`` for `resize: auto` without a known size.
    """
    if data.resize is None:
        return data
    update: dict[str, object] = {}
    if data.resize == "auto":
        if trained is None or trained.size is None:
            raise ValueError(
                "experiment.data.resize: auto takes the size that the weights were trained with, "
                "and nothing says it. Write resize: 224"
            )
        update["resize"] = trained.size
    if trained is not None:
        if data.eval_crop == "auto" and trained.crop is not None:
            update["eval_crop"] = trained.crop
        if data.interpolation == "auto":
            update["interpolation"] = trained.interpolation
    return data.model_copy(update=update)


def levels_of(
    data: config.Data, reading: Reading, train: Samples, trained: Preprocessing | None
) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation (C,) float64 of levels 0 to 255 that inputs are normalised by.

    With auto those that weights were `trained` with, else ImageNet's for its augmentation, else
    what the training part says. They never depend on whether images are streamed. None for what is
    taken as it is.
    """
    chosen, channels = data.normalize, reading.num_channels
    if reading.shape is None:
        return None
    if reading.dtype != torch.uint8:
        if chosen not in ("auto", "none"):
            raise ValueError(
                "experiment.data.normalize is of uint8 images, and these are floats, which are "
                "taken as they are. Leave normalize out, or return uint8"
            )
        return None
    if chosen == "none":
        zeros = torch.zeros(channels, dtype=torch.float64)
        return zeros, zeros + 255
    if isinstance(chosen, config.Normalize):
        return _given_levels(chosen, channels)
    if chosen == "imagenet" and channels != 3:
        raise ValueError(
            f"experiment.data.normalize: imagenet is of 3 channels, these images have {channels}. "
            "Add data.channels: 3"
        )
    if chosen == "auto" and trained is not None:
        return _given_levels(trained, channels)
    if chosen == "imagenet" or (reading.augmentation == "imagenet" and channels == 3):
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = channel_statistics(train)
    return mean.expand(channels), std.clamp(min=1.0).expand(channels)


def _given_levels(given: config.Normalize | Preprocessing, channels: int) -> tuple[Tensor, Tensor]:
    if len(given.mean) not in (1, channels):
        raise ValueError(
            f"experiment.data.normalize is of {len(given.mean)} channels, these images have "
            f"{channels}. {_other_channels(len(given.mean), channels)}"
        )
    mean, std = 255 * torch.tensor([given.mean, given.std], dtype=torch.float64)
    return mean.expand(channels), std.expand(channels)


def _other_channels(wanted: int, channels: int) -> str:
    if {wanted, channels} == {1, 3}:
        return f"Add data.channels: {wanted}"
    return "Write data.normalize: none, or {mean: [0.5], std: [0.5]}"


def said_of(data: config.Data, reading: Reading, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """What a record says, for whoever uses the network elsewhere."""
    return {
        "mean": (mean / 255).tolist(),
        "std": (std / 255).tolist(),
        "resize": data.resize,
        "eval_crop": reading.crop if data.resize else None,
        "interpolation": reading.interpolation if data.resize else None,
        "channels": reading.num_channels,
    }
