"""How samples are read: as images of one shape, or as they are; held in memory, or streamed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from rayprune import config
from rayprune.config.preprocessing import Interpolation
from rayprune.data.augment import IMAGENET_CROP, Augmentation
from rayprune.data.check import check_augmentation
from rayprune.data.nests import num_bytes
from rayprune.data.reader import batch_of, stacked
from rayprune.data.sources import (
    BadSampleError,
    Collate,
    Source,
    Sources,
    TensorRows,
    is_image,
)

LARGE_BYTES = 4e9  # decoded images that are rather streamed than held on the device
NUM_FIRST = 16  # samples among which one must be readable, to know the images' shape


@dataclass(frozen=True)
class Reading:
    """How samples are read: nothing in it depends on how many processes do it."""

    shape: tuple[int, int, int] | None
    """Of images as they are kept; None for other inputs."""
    dtype: torch.dtype
    augmentation: Augmentation
    is_streamed: bool
    example: tuple[Any, Any]
    num_channels: int = 0
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    collate: Collate | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether grey images become coloured ones, as late as that can be."""
        return self.shape is not None and self.num_channels != self.shape[0]


def how_to_read(data: config.Data, sources: Sources, has_classes: bool) -> Reading:
    """How samples of these sources are read, by what `data` says and by the first of them.

    Raises a ``ValueError`` that names the field which does not fit them.
    """
    sample = _first_sample(sources.train, data.on_bad)
    num = len(sources.train) + len(sources.test) + len(sources.val or ())
    if sources.collate is not None or not is_image(sample[0]):
        return _of_nests(data, sources, sample, num)
    image, target = sample
    channels, height, width = image.shape
    side = side_of(data)
    kept = 1 if data.channels == 1 else channels
    wanted = data.channels or channels
    if wanted != channels and {wanted, channels} != {1, 3}:
        raise ValueError(
            f"experiment.data.channels: {wanted} is made of 1 or 3 channels, the images have "
            f"{channels}. Leave it out"
        )
    shape = (kept, side or height, side or width)
    is_large = num * prod(shape) * image.dtype.itemsize > LARGE_BYTES
    is_plain = isinstance(target, Tensor) and target.ndim == 0
    augmentation: Augmentation
    if data.augment != "auto":
        augmentation = data.augment
    elif side and is_large and is_plain and has_classes:
        augmentation = "imagenet"
    else:
        augmentation = "crop_flip" if channels == 3 and is_plain and has_classes else "none"
    _check_targets_move_along(augmentation, side, target, has_classes)
    check_augmentation(augmentation, data)
    must_stream = data.streaming == "always" or augmentation == "imagenet"
    _, targets = stacked([(0, target)], sources.train.place(0))
    interpolation = "bilinear" if data.interpolation == "auto" else data.interpolation
    crop = IMAGENET_CROP if augmentation == "imagenet" else 1.0
    return Reading(
        shape,
        image.dtype,
        augmentation,
        is_streamed=must_stream or (data.streaming == "auto" and is_large),
        example=(torch.zeros(1, wanted, *shape[1:]), targets),
        num_channels=wanted,
        crop=crop if data.eval_crop == "auto" else data.eval_crop,
        interpolation=interpolation,
    )


def _of_nests(data: config.Data, sources: Sources, sample: tuple[Any, Any], num: int) -> Reading:
    """Samples that are taken as they are; those that have a collate are read as they are needed."""
    for field in ("resize", "channels"):
        if getattr(data, field) is not None:
            raise ValueError(f"experiment.data.{field} is of images, and inputs here are none")
    for field in ("augment", "normalize"):
        if getattr(data, field) not in ("auto", "none"):
            raise ValueError(
                f"experiment.data.{field} is of images, and inputs here are none. Do it in your "
                f"function, and leave {field} out"
            )
    must_stream = data.streaming == "always" or sources.collate is not None
    is_large = num * num_bytes(sample) > LARGE_BYTES and not isinstance(sources.train, TensorRows)
    example = batch_of([sample], sources.collate, sources.train.place(0))
    return Reading(
        None,
        torch.float32,
        "none",
        is_streamed=must_stream or (data.streaming == "auto" and is_large),
        example=example,
        collate=sources.collate,
    )


def _check_targets_move_along(
    augmentation: Augmentation, side: int | None, target: Any, has_classes: bool
) -> None:
    is_plane = not isinstance(target, Tensor) or target.ndim > 0
    if has_classes and is_plane and (side or augmentation == "imagenet"):
        raise ValueError(
            "experiment.data: targets that are images can be cropped and flipped, not resized. "
            "Resize images and targets in your function, without resize and augment: imagenet"
        )
    if not has_classes and is_plane and (side or augmentation != "none"):
        raise ValueError(
            "experiment.data: targets of a task of your own do not move along with their images. "
            "Resize and augment in your dataset, without resize and augment"
        )


def _first_sample(source: Source, on_bad: str) -> tuple[Any, Any]:
    for row in range(min(NUM_FIRST, len(source))):
        try:
            return source[row]
        except BadSampleError:
            if on_bad == "error":
                raise
    raise ValueError(
        f"experiment.data: the first {min(NUM_FIRST, len(source))} training samples are unreadable"
    )


def side_of(data: config.Data) -> int | None:
    """The side that images are brought to, once `auto` was looked up."""
    assert data.resize != "auto", "with_size has replaced it"
    return data.resize
