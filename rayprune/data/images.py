"""Encoded images (PNG, JPEG, …) to uint8 tensors, all of one colour mode.

With PIL: torchvision's decoders take half the time for tiny PNGs, but 0.29 says they will go.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Mode = Literal["L", "RGB"]
"""PIL's names of grey and colour."""

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")
BAD_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    Image.DecompressionBombError,
)
"""What PIL raises for bytes that are no image or a damaged one."""


def decode_image(blob: bytes, mode: Mode) -> Tensor:
    """One image as uint8, (1, H, W) or (3, H, W) as `mode` says; other modes are converted.

    Raises a `ValueError` when the bytes are no image, or a damaged one.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(blob))
        image.load()
        if image.mode.startswith("I"):  # 16 bits: PIL would clip them
            image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
        if image.mode != mode:
            image = image.convert(mode)
    except BAD_IMAGE as error:
        raise ValueError(f"the {len(blob)} bytes of the image cannot be decoded") from error
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, C)
    return pixels[None] if mode == "L" else pixels.permute(2, 0, 1)


def common_mode(blobs: Iterable[bytes]) -> Mode:
    """RGB when any of the images has colour, else L; what cannot be decoded has no say.

    A look at the first image alone would turn a whole set grey when that one happens to be.
    """
    return "RGB" if any(map(_has_colour, blobs)) else "L"


def _has_colour(blob: bytes) -> bool:
    try:
        return Image.open(io.BytesIO(blob)).mode not in GREY_MODES  # reads the header only
    except BAD_IMAGE:
        return False
