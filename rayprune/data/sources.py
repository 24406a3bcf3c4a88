"""Where samples come from: one protocol over files, tensors and datasets, read row by row.

A sample is (input, target). An image that is an input by itself is (C, H, W), uint8 or float32; any
other input, and a target that is no class number, is a nest of tensors that is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from rayprune.data.nests import as_tensors, map_tensors, tensors_in

Collate = Callable[[list[Any]], tuple[Any, Any]]

IGNORED_PIXEL = 255
"""Value of target pixels that count for nothing: void, or outside of the image after a crop."""


class BadSampleError(ValueError):
    """A sample that cannot be used: its file and row, and why."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)  # both, so that it can be sent between processes

    def __str__(self) -> str:
        place, reason = self.args
        return (
            f"{place}: {reason}. "
            f"Mend it, or write experiment.data.on_bad: skip to leave such rows out"
        )


class Source(Protocol):
    """One part of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        """Input, such as an image (C, H, W), and target, such as int64 () or (H, W).

        Raises `BadSampleError` when the row cannot be read.
        """

    def place(self, row: int) -> str:
        """Where the row is, for messages: file and row."""

    def streamed(self) -> Source:
        """The same samples, quick to read in any order and light to hand to another process."""


@dataclass(frozen=True)
class Sources:
    """The parts of a data set as they were found, before any split."""

    train: Source
    test: Source
    val: Source | None = None
    classes: tuple[str, ...] | None = None
    """None: the numbers that occur in the training part, 0 to the largest."""
    collate: Collate | None = None
    """Samples -> a batch of inputs and targets, where they cannot be stacked."""


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Inputs and targets that are in memory already."""

    name: str
    inputs: Any  # nest of (n, ...); images (n, C, H, W)
    targets: Any  # nest of (n, ...); class numbers (n,) or (n, H, W) int64

    def __len__(self) -> int:
        return len(next(tensors_in(self.inputs)))

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        sample = map_tensors(lambda tensor: tensor[row], (self.inputs, self.targets))
        return sample[0], sample[1]

    def place(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def streamed(self) -> TensorRows:
        return self


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """A map-style dataset of (input, target); an image is a tensor or a PIL image."""

    name: str
    dataset: Any
    num_classes: int | None = None
    """None: known only when all targets were read."""
    has_classes: bool = True
    """Whether targets are class numbers; else they are taken as they are."""
    is_collated: bool = False
    """Whether samples are the business of the user's collate alone."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        place = self.place(row)
        try:
            sample = self.dataset[row]
        except OSError as error:  # PIL's errors are OSErrors; a bug of the dataset shows as itself
            raise BadSampleError(place, str(error)) from error
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise ValueError(f"{place}: a sample must be (input, target), got {sample!r:.80}")
        given, target = sample
        if self.is_collated:
            return given, target
        return _input(given, place), self._target(target, place)

    def place(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def streamed(self) -> DatasetRows:
        return self

    def _target(self, target: Any, place: str) -> Any:
        if not self.has_classes:
            return as_tensors(target)
        target = torch.as_tensor(target)
        if target.is_floating_point() or target.ndim not in (0, 2):
            raise ValueError(
                f"{place}: a target must be a class number, or an (H, W) tensor of class numbers, "
                f"got {target.dtype} of shape {tuple(target.shape)}"
            )
        check_classes(target[None], self.num_classes, lambda _: place)
        return target.to(torch.int64)


def as_levels(images: Tensor, place: str) -> Tensor:
    """uint8 as it is, any float as float32; other integers could mean any range."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"{place}: images must be uint8, 0 to 255, or floats that are normalised already, "
            f"got {images.dtype}"
        )
    return images if images.dtype == torch.uint8 else images.to(torch.float32)


def check_classes(targets: Tensor, num_classes: int | None, place: Callable[[int], str]) -> None:
    """Raises a `ValueError` unless all are class numbers, or `IGNORED_PIXEL` in target images.

    `targets` (n,) or (n, H, W); `place` says where the i-th one is. Without `num_classes` only
    negative numbers are wrong.
    """
    bad = targets < 0
    if num_classes is not None:
        bad |= targets >= num_classes
    if targets.ndim == 3:
        bad &= targets != IGNORED_PIXEL
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        last = "the number of classes - 1" if num_classes is None else num_classes - 1
        raise ValueError(
            f"{place(row)}: targets must be class numbers, 0 to {last}, got {int(targets[bad][0])}"
        )


def is_image(value: Any) -> bool:
    """Whether an input is one image (C, H, W), by itself."""
    return isinstance(value, Tensor) and value.ndim == 3 and _may_be_levels(value)


def are_images(value: Any) -> bool:
    """Whether a batch of inputs is one of images (n, C, H, W)."""
    return isinstance(value, Tensor) and value.ndim == 4 and _may_be_levels(value)


def _may_be_levels(tensor: Tensor) -> bool:
    return tensor.dtype == torch.uint8 or tensor.is_floating_point()


def _input(value: Any, place: str) -> Any:
    """An image as a tensor (C, H, W); any other input with tensors in place of numbers."""
    is_plain = isinstance(value, Tensor) and value.ndim != 3 and value.dtype != torch.uint8
    if isinstance(value, Tensor | Image.Image) and not is_plain:
        return _image(value, place)
    return as_tensors(value)


def _image(image: Any, place: str) -> Tensor:
    if isinstance(image, Image.Image):
        # Not imported above: torchvision takes seconds, and the embedded set does without it.
        from torchvision.transforms.v2.functional import pil_to_tensor

        image = pil_to_tensor(image if image.mode == "L" else image.convert("RGB"))
    if not isinstance(image, Tensor) or image.ndim != 3:
        got = (
            f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image)
        )
        raise ValueError(f"{place}: an image must be a tensor (C, H, W) or a PIL image, got {got}")
    return as_levels(image, place)
