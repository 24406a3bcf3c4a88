"""Augmentation as a function of images and random numbers.

Nothing here draws a number: the caller draws them for the whole global batch, so a sample is
augmented the same way for any number of workers and whichever batch it falls into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rayprune.config.preprocessing import Interpolation

Augmentation = Literal["none", "crop", "crop_flip", "crop_flip_rotate", "imagenet"]

PADDING = 4  # black pixels on each side before a random crop, as for CIFAR in He et al. 2016
MAX_ANGLE = 15.0  # degrees, either way, as the paper's authors turn CIFAR-100's images
NUM_ATTEMPTS = 10  # boxes that a random resized crop tries before it takes the centre
AREA = (0.08, 1.0)  # of the image, Szegedy et al. 2015
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # width over height
IMAGENET_CROP = 224 / 256  # ImageNet's evaluation: resize to 256, keep the centre 224

NUM_RANDOMS = 3 + 2 * NUM_ATTEMPTS
"""Random numbers of a sample: vertical and horizontal position, flip, then (area, ratio) pairs.

No augmentation turns and resizes: the angle is the first area's number, and the others keep theirs.
"""


def augment(images: Tensor, randoms: Tensor, kind: Augmentation, *, fill: float = 0) -> Tensor:
    """Crops, flips and turns every image of a batch by its own random numbers.

    `images` (n, C, H, W) of any dtype, `randoms` (n, NUM_RANDOMS) in [0, 1) on any device; returns
    (n, C, H, W). A crop is a window of the image padded by `PADDING` pixels of `fill`. `imagenet`
    only flips here, since `random_resized_crop` made its crop from the image in full size.
    `crop_flip_rotate` turns what was cropped and flipped by up to `MAX_ANGLE` degrees.
    """
    if kind == "none":
        return images
    vertical, horizontal, flip = randoms[:, :3].to(images.device).unbind(1)  # (n,) each
    flipped = flip < 0.5
    if kind == "imagenet":
        return torch.where(flipped[:, None, None, None], images.flip(-1), images)
    height, width = images.shape[-2:]
    rows = _offsets(vertical) + torch.arange(height, device=images.device)  # (n, H)
    columns = _offsets(horizontal) + torch.arange(width, device=images.device)  # (n, W)
    if kind in ("crop_flip", "crop_flip_rotate"):
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    padded = F.pad(images, [PADDING] * 4, value=fill)
    pixels = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]  # (n, H, W)
    cropped = _gather(padded, pixels)
    if kind != "crop_flip_rotate":
        return cropped
    return rotate(cropped, MAX_ANGLE * (2 * randoms[:, 3].to(images.device) - 1), fill=fill)


def rotate(images: Tensor, degrees: Tensor, *, fill: float = 0) -> Tensor:
    """Turns every image (n, C, H, W) counter-clockwise about its centre by its own degrees (n,).

    A pixel takes the nearest one of where it was, and `fill` where that lies outside.
    """
    height, width = images.shape[-2:]
    # In double precision: float32 may round a pixel's place differently on another device.
    angle = degrees.double().deg2rad()[:, None, None]  # (n, 1, 1)
    y = torch.arange(height, device=images.device).double()[:, None] - (height - 1) / 2  # (H, 1)
    x = torch.arange(width, device=images.device).double() - (width - 1) / 2  # (W,)
    rows = (angle.sin() * x + angle.cos() * y + (height - 1) / 2).round().long()  # (n, H, W)
    columns = (angle.cos() * x - angle.sin() * y + (width - 1) / 2).round().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return _gather(images, pixels).masked_fill(~inside[:, None], fill)


def _gather(images: Tensor, pixels: Tensor) -> Tensor:
    """Pixels (n, H, W), as places in the flattened plane, of each image (n, C, h, w)."""
    # One gather in that plane: faster than indexing by windows or by rows and columns.
    places = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).unflatten(2, pixels.shape[1:])


def grey(image: Tensor) -> Tensor:
    """Luminance (1, H, W) of one colour image (3, H, W), of its own type."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    level = (image * weights).sum(0, keepdim=True)
    return level.round().to(image.dtype) if image.dtype == torch.uint8 else level


def _offsets(numbers: Tensor) -> Tensor:
    """(n,) in [0, 1) -> (n, 1) int64 in 0 .. 2 PADDING; the clamp is for float32's rounding up."""
    return (numbers * (2 * PADDING + 1)).long().clamp(max=2 * PADDING)[:, None]


def crop_box(height: int, width: int, numbers: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of an image (Szegedy et al. 2015).

    The box takes 8 to 100 % of the area at a ratio of 3/4 to 4/3; the first of `NUM_ATTEMPTS` that
    fits is taken, and the largest centred box of an allowed ratio when none does. `numbers` are the
    NUM_RANDOMS of one sample.
    """
    for area, ratio in zip(numbers[3::2], numbers[4::2], strict=True):
        area = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = math.exp(LOG_RATIO[0] + ratio * (LOG_RATIO[1] - LOG_RATIO[0]))
        box_height, box_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(numbers[0] * (height - box_height + 1))
            left = int(numbers[1] * (width - box_width + 1))
            return top, left, box_height, box_width
    box_width = min(width, max(1, round(height * math.exp(LOG_RATIO[1]))))
    box_height = min(height, max(1, round(width / math.exp(LOG_RATIO[0]))))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_resized_crop(
    image: Tensor, numbers: Sequence[float], side: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """The box that `numbers` say of one image (C, H, W), resized to (C, side, side)."""
    from torchvision.transforms.v2 import functional as tv  # seconds: only where images are resized

    top, left, height, width = crop_box(image.shape[-2], image.shape[-1], numbers)
    box = image[:, top : top + height, left : left + width]
    return tv.resize(box, [side, side], tv.InterpolationMode(interpolation))


def center_crop(
    image: Tensor, side: int, crop: float = 1.0, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """The centre (C, side, side) of one image whose shorter side was resized to side / crop."""
    from torchvision.transforms.v2 import functional as tv

    height, width = image.shape[-2:]
    scale = int(side / crop + 1e-6) / min(height, width)  # rounded down, as timm does
    size = [max(side, round(height * scale)), max(side, round(width * scale))]
    if size != [height, width]:
        image = tv.resize(image, size, tv.InterpolationMode(interpolation))
    return tv.center_crop(image, [side, side])
