from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from rayprune.data.augment import (
    NUM_RANDOMS,
    PADDING,
    Augmentation,
    augment,
    center_crop,
    crop_box,
    random_resized_crop,
    rotate,
)

LARGEST = 1 - 2**-24  # the largest float32 below 1


def images_and_randoms(num: int = 40, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, channels, 9, 7), dtype=torch.uint8, generator=generator)
    return images, torch.rand(num, NUM_RANDOMS, generator=generator)


def plain_crop_flip(image: torch.Tensor, numbers: list[float], *, flips: bool) -> torch.Tensor:
    """One image, pixel by pixel."""
    _, height, width = image.shape
    top, left = (math.floor(number * (2 * PADDING + 1)) - PADDING for number in numbers[:2])
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            source_y = top + y
            source_x = left + (width - 1 - x if flips and numbers[2] < 0.5 else x)
            if 0 <= source_y < height and 0 <= source_x < width:
                result[:, y, x] = image[:, source_y, source_x]
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_crop_and_flip_equal_a_plain_loop(kind: Augmentation, channels: int) -> None:
    images, randoms = images_and_randoms(channels=channels)
    expected = [
        plain_crop_flip(image, numbers, flips=kind == "crop_flip")
        for image, numbers in zip(images, randoms.tolist(), strict=True)
    ]
    assert torch.equal(augment(images, randoms, kind), torch.stack(expected))


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip", "crop_flip_rotate", "imagenet"])
def test_an_image_depends_on_its_own_numbers_alone(kind: Augmentation) -> None:
    images, randoms = images_and_randoms()
    before = images.clone()
    whole = augment(images, randoms, kind)
    assert torch.equal(images, before)
    assert torch.equal(
        torch.cat([augment(images[i::2], randoms[i::2], kind) for i in (0, 1)]),
        torch.cat([whole[0::2], whole[1::2]]),
    )


def test_the_outermost_numbers_reach_both_borders_and_no_further() -> None:
    images = torch.ones(2, 1, 12, 12, dtype=torch.uint8)
    randoms = torch.full((2, NUM_RANDOMS), LARGEST)
    randoms[0] = 0
    first, last = augment(images, randoms, "crop")[:, 0]
    assert first[PADDING:, PADDING:].all()
    assert not first[:PADDING].any()
    assert not first[:, :PADDING].any()
    assert torch.equal(last, first.flip(0, 1))


def test_none_changes_nothing_and_imagenet_flips_half() -> None:
    images, randoms = images_and_randoms(400)
    assert torch.equal(augment(images, randoms, "none"), images)
    flipped = augment(images, randoms, "imagenet")
    is_flipped = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(is_flipped, randoms[:, 2] < 0.5)
    assert torch.equal(flipped[~is_flipped], images[~is_flipped])
    assert 150 < is_flipped.sum() < 250


@pytest.mark.parametrize("angle", [-180.0, -60.0, -15.0, -3.7, 0.0, 0.4, 8.0, 15.0])
@pytest.mark.parametrize("size", [(32, 32), (31, 20)])
def test_rotation_is_torchvisions_nearest_one(size: tuple[int, int], angle: float) -> None:
    images = torch.randint(1, 256, (2, 3, *size), dtype=torch.uint8)  # 0 is what is filled in
    ours = rotate(images, torch.full((2,), angle))
    theirs = tv.rotate(images, angle)
    assert (ours == theirs).float().mean() > 0.99  # of two equally near pixels either may be taken


def test_no_angle_changes_nothing_and_each_image_has_its_own() -> None:
    images, _ = images_and_randoms(5)
    assert torch.equal(rotate(images, torch.zeros(5)), images)
    angles = torch.tensor([0.0, 90.0, -15.0, 7.0, 180.0])
    alone = [rotate(images[i : i + 1], angles[i : i + 1]) for i in range(5)]
    assert torch.equal(rotate(images, angles), torch.cat(alone))
    assert torch.equal(alone[4][0], images[4].flip(1, 2))
    square = images[1:2, :, :7]
    assert torch.equal(rotate(square, angles[1:2]), square.rot90(dims=(2, 3)))


def test_an_image_is_turned_after_its_crop_and_flip_by_up_to_15_degrees() -> None:
    images, randoms = images_and_randoms()
    cropped = augment(images, randoms, "crop_flip")
    turned = augment(images, randoms, "crop_flip_rotate")
    assert torch.equal(turned, rotate(cropped, 15 * (2 * randoms[:, 3] - 1)))
    randoms[:, 3] = 0.5
    assert torch.equal(augment(images, randoms, "crop_flip_rotate"), cropped)


def test_fill_marks_what_lies_outside() -> None:
    planes = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    cropped = augment(planes, torch.zeros(1, NUM_RANDOMS), "crop", fill=255)
    assert (cropped == 255).sum() == 8 * 8 - 4 * 4
    turned = rotate(planes, torch.tensor([45.0]), fill=255)
    corners = turned[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all() and turned.unique().tolist() == [0, 255]


@pytest.mark.parametrize(("height", "width"), [(60, 80), (50, 50), (100, 40)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    torch.manual_seed(0)
    num = 1500
    ours = torch.tensor([crop_box(height, width, n) for n in torch.rand(num, NUM_RANDOMS).tolist()])
    make = RandomResizedCrop(8)
    image = torch.empty(1, height, width)
    drawn = [make.make_params([image]) for _ in range(num)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn])
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    spread = theirs.double().std(0) / math.sqrt(num)
    assert ((ours.double().mean(0) - theirs.double().mean(0)).abs() < 5 * spread).all()
    assert ((ours.double().std(0) / theirs.double().std(0) - 1).abs() < 0.1).all()


@pytest.mark.parametrize(("height", "width"), [(4, 400), (400, 4)])
def test_a_box_that_fits_nowhere_is_the_centre(height: int, width: int) -> None:
    box = crop_box(height, width, [0.9] * NUM_RANDOMS)
    params = RandomResizedCrop(8).make_params([torch.empty(1, height, width)])
    assert box == (params["top"], params["left"], params["height"], params["width"])


def test_random_resized_crop_resizes_its_box() -> None:
    image = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    numbers = torch.rand(NUM_RANDOMS).tolist()
    top, left, height, width = crop_box(30, 40, numbers)
    box = image[:, top : top + height, left : left + width]
    assert torch.equal(random_resized_crop(image, numbers, 16), tv.resize(box, [16, 16]))


@pytest.mark.parametrize("size", [(20, 30), (31, 20), (8, 9), (16, 16)])
@pytest.mark.parametrize("crop", [1.0, 224 / 256])
def test_center_crop_is_resize_then_crop(size: tuple[int, int], crop: float) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    cropped = center_crop(image, 16, crop)
    assert cropped.shape == (3, 16, 16)
    if min(size) == 16 and crop == 1.0:
        assert torch.equal(cropped, tv.center_crop(image, [16, 16]))
    else:
        scale = int(16 / crop) / min(size)
        resized = tv.resize(image, [round(size[0] * scale), round(size[1] * scale)])
        assert torch.equal(cropped, tv.center_crop(resized, [16, 16]))
