from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_images import make_images
from PIL import Image
from torch import Tensor

from rayprune import config
from rayprune.data import InMemory, load_data

CPU = torch.device("cpu")


def tensors(num: int, *, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(make_images(num, channels=channels, seed=seed))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images, torch.arange(num) % 3


class Pictures:
    """A map-style dataset of PIL images."""

    def __init__(self, num: int, seed: int = 0, broken: int | None = None) -> None:
        self.images, self.broken = make_images(num, seed=seed), broken

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        if row == self.broken:
            raise OSError("image file is truncated")
        return Image.fromarray(self.images[row]), row % 3


def as_tensors(num: int = 10, **more: Any) -> dict[str, Any]:
    return {"train": tensors(num), "test": tensors(6, seed=1), **more}


def with_val() -> dict[str, Any]:
    return as_tensors(val=tensors(4, seed=2), classes=["a", "b", "c"])


def as_pictures(broken: int | None = None, **more: Any) -> dict[str, Any]:
    return {"train": Pictures(10, broken=broken), "test": Pictures(6, 1), **more}


def as_floats() -> dict[str, Any]:
    parts = as_tensors()
    return {name: (images / 255, targets) for name, (images, targets) in parts.items()}


def as_segments(num_classes: int = 4) -> dict[str, Any]:
    def part(num: int, seed: int) -> tuple[Tensor, Tensor]:
        planes = torch.from_numpy(make_images(num, channels=1, seed=seed)).long() % num_classes
        planes[:, 0, 0] = 255  # nothing is known of this pixel
        return tensors(num, seed=seed)[0], planes

    return {"train": part(10, 0), "test": part(6, 1)}


GIVEN: dict[str, Any] = {}


def given() -> dict[str, Any]:
    return GIVEN


def data_of(function: str, **fields: Any) -> config.Data:
    return config.Data.model_validate({"target": f"test_function:{function}", **fields})


def test_tensors_are_split_like_any_other_set() -> None:
    data = load_data(data_of("as_tensors", kwargs={"num": 20}), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 6)
    assert data.classes == ("0", "1", "2")
    assert isinstance(data.test.samples, InMemory)
    assert torch.equal(data.test.samples.inputs, tensors(6, seed=1)[0])


def test_a_validation_part_of_its_own_is_used() -> None:
    data = load_data(data_of("with_val"), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (10, 4, 6)
    assert data.classes == ("a", "b", "c")
    assert data.val.augmentation == "none"


def test_datasets_equal_the_same_images_as_tensors() -> None:
    rows = [torch.tensor([8, 1, 4])]
    randoms = [torch.rand(3, 23)]
    expected = list(
        load_data(data_of("as_tensors"), seed=0).train.batches(rows, device=CPU, randoms=randoms)
    )
    for fields in ({}, {"streaming": "always", "kwargs": {"classes": ["a", "b", "c"]}}):
        split = load_data(data_of("as_pictures", **fields), seed=0).train
        for (inputs, targets), (others, other_targets) in zip(
            split.batches(rows, device=CPU, randoms=randoms), expected, strict=True
        ):
            assert torch.equal(inputs, others)
            assert torch.equal(targets, other_targets)


def test_a_streamed_dataset_must_say_its_classes() -> None:
    with pytest.raises(ValueError, match=r"experiment.data.target: .*Return classes"):
        load_data(data_of("as_pictures", streaming="always"), seed=0)


def test_unreadable_pictures_are_named_or_skipped() -> None:
    fields = {"kwargs": {"broken": 4}}
    with pytest.raises(ValueError, match=r"data.target: train, row 4: image file is truncated"):
        load_data(data_of("as_pictures", **fields), seed=0)
    assert load_data(data_of("as_pictures", on_bad="skip", **fields), seed=0).num_skipped == 1


def test_floats_are_not_normalised_again() -> None:
    data = load_data(data_of("as_floats"), seed=0)
    inputs, _ = next(data.test.batches([torch.arange(6)], device=CPU))
    assert torch.equal(inputs, tensors(6, seed=1)[0] / 255)


def test_target_images_keep_their_shape() -> None:
    data = load_data(data_of("as_segments"), seed=0)
    assert data.classes == ("0", "1", "2", "3")
    assert data.train.augmentation == "none"
    inputs, targets = next(data.train.batches([torch.arange(4)], device=CPU))
    assert (inputs.shape, targets.shape) == ((4, 3, 12, 12), (4, 12, 12))
    assert targets.dtype == torch.int64
    assert (
        load_data(data_of("as_segments", augment="crop_flip"), seed=0).train.augmentation
        == "crop_flip"
    )
    for fields in ({"resize": 8}, {"resize": 8, "augment": "imagenet"}):
        with pytest.raises(ValueError, match="cropped and flipped, not resized"):
            load_data(data_of("as_segments", **fields), seed=0)


IMAGES, TARGETS = tensors(6)
GOOD = (IMAGES, TARGETS)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": GOOD}, r" must return a mapping with train and test, got \['train'\]"),
        (
            {"train": GOOD, "test": GOOD, "vall": GOOD},
            r".*'vall', but only train, test, val, classes and",
        ),
        ({"train": GOOD, "test": 5}, r": test must be a tuple \(inputs, targets\) or a map-style"),
        (
            {"train": GOOD, "test": (IMAGES, [1])},
            r": test must be \(inputs, targets\), .* got \(6, 3, 12, 12\) and list",
        ),
        (
            {"train": (IMAGES[:, 0], TARGETS), "test": GOOD},
            r": train: images must be \(n, C, H, W\)",
        ),
        (
            {"train": (IMAGES, TARGETS[:3]), "test": GOOD},
            r": train must be .* first dimension that all share, got \(6, .*\) and \(3,\)",
        ),
        ({"train": (IMAGES.int(), TARGETS), "test": GOOD}, ": train: images must be uint8.*int32"),
        ({"train": (IMAGES, TARGETS / 2), "test": GOOD}, ": train: targets must be class numbers"),
        ({"train": (IMAGES, TARGETS * 2), "test": GOOD}, ": train, row 2: class 4 while 1 never"),
        ({"train": (IMAGES, TARGETS - 1), "test": GOOD}, ": train, row 0: targets .* got -1"),
        ({"train": GOOD, "test": (IMAGES, TARGETS + 1)}, ": test, row 2: targets .* 0 to 2, got 3"),
    ],
)
def test_what_cannot_be_used_is_said(parts: dict[str, Any], message: str) -> None:
    GIVEN.clear()
    GIVEN.update(parts)
    with pytest.raises(ValueError, match=f"experiment.data.target{message}"):
        load_data(data_of("given"), seed=0)


def test_the_message_names_the_field() -> None:
    with pytest.raises(ValueError, match=r"experiment\.data\.target: cannot import no_such_module"):
        load_data(config.Data(target="no_such_module:f"), seed=0)


def test_a_module_outside_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_images.py").write_text(
        "import torch\n"
        "def build(num):\n"
        "    part = torch.zeros(num, 1, 8, 8, dtype=torch.uint8), torch.arange(num) % 2\n"
        "    return {'train': part, 'test': part}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = load_data(config.Data(target="my_images:build", kwargs={"num": 12}), seed=0)
    assert (len(data.test), data.classes) == (12, ("0", "1"))
    sys.modules.pop("my_images")
