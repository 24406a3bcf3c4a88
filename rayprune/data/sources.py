"""Where samples come from: one protocol over files, tensors and datasets, read row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

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

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Image (C, H, W), uint8 or float32, and target, int64 () or (H, W).

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


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Images and targets that are in memory already."""

    name: str
    images: Tensor  # (n, C, H, W)
    targets: Tensor  # (n,) or (n, H, W) int64

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.images[row], self.targets[row]

    def place(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def streamed(self) -> TensorRows:
        return self


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """A map-style dataset of (image, target), the image a tensor or a PIL image."""

    name: str
    dataset: Any
    num_classes: int | None = None
    """None: known only when all targets were read."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        try:
            image, target = self.dataset[row]
        except OSError as error:  # PIL's errors are OSErrors; a bug of the dataset shows as itself
            raise BadSampleError(self.place(row), str(error)) from error
        return _image(image, self.place(row)), self._target(target, self.place(row))

    def place(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def streamed(self) -> DatasetRows:
        return self

    def _target(self, target: Any, place: str) -> Tensor:
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
