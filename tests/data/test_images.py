from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
import torch
from made_images import encode, make_images
from PIL import Image

from rayprune.data.images import common_mode, decode_image

GREY = make_images(1, channels=1)[0]
COLOUR = make_images(1)[0]


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_images_come_back(kind: str) -> None:
    assert torch.equal(decode_image(encode(GREY, kind), "L"), torch.from_numpy(GREY)[None])
    colour = decode_image(encode(COLOUR, kind), "RGB")
    assert torch.equal(colour, torch.from_numpy(COLOUR).permute(2, 0, 1))
    assert colour.dtype == torch.uint8


def test_jpegs_come_back_nearly() -> None:
    smooth = np.tile(np.arange(0, 120, 10, dtype=np.uint8), (12, 1))
    decoded = decode_image(encode(smooth, "JPEG", quality=95), "L")
    assert (decoded.int() - torch.from_numpy(smooth).int()).abs().max() < 8


def test_other_modes_are_converted() -> None:
    grey = decode_image(encode(GREY), "RGB")
    assert torch.equal(grey, torch.from_numpy(GREY).expand(3, -1, -1))
    assert decode_image(encode(COLOUR), "L").shape == (1, 12, 12)
    rgba = np.dstack([COLOUR, np.full((12, 12), 7, np.uint8)])
    assert torch.equal(decode_image(encode(rgba), "RGB"), torch.from_numpy(COLOUR).permute(2, 0, 1))
    palette = Image.fromarray(GREY).convert("P")
    assert torch.equal(decode_image(saved(palette, "PNG"), "L"), torch.from_numpy(GREY)[None])
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    assert decode_image(saved(cmyk, "JPEG"), "RGB").shape == (3, 12, 12)


def test_sixteen_bits_keep_their_upper_half() -> None:
    deep = GREY.astype(np.uint16) * 256 + 99
    assert torch.equal(decode_image(encode(deep), "L"), torch.from_numpy(GREY)[None])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_damaged_bytes_are_a_value_error_or_an_image(kind: str) -> None:
    random = np.random.default_rng(0)
    whole = encode(COLOUR, kind)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 6):
            damaged[place] = random.integers(256)
        with suppress(ValueError):
            assert decode_image(bytes(damaged), "RGB").dtype == torch.uint8


@pytest.mark.parametrize("blob", [b"", b"no image", encode(COLOUR)[:-40], encode(GREY)[:30]])
def test_truncated_bytes_are_a_value_error(blob: bytes) -> None:
    with pytest.raises(ValueError, match=f"the {len(blob)} bytes of the image"):
        decode_image(blob, "RGB")


def test_one_colour_image_makes_a_colour_set() -> None:
    assert common_mode([encode(GREY), encode(GREY, "JPEG")]) == "L"
    assert common_mode([b"no image", encode(GREY), encode(COLOUR, "JPEG")]) == "RGB"
