"""Batches of a data set's parts: from memory or streamed, augmented and normalised on the device.

Both ways lead to the same batches, bit for bit, for the same indices and random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from rayprune.data.augment import Augmentation, augment
from rayprune.data.reader import Reader, stream
from rayprune.data.sources import IGNORED_PIXEL

NUM_STATISTICS = 16_384  # images that mean and std are taken over; their error is then about .1 %


class Samples(Protocol):
    """Where a split's samples lie."""

    def __len__(self) -> int: ...

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """For each (n,) of `indices` images and targets on `device`, and random numbers."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """All samples as tensors, brought to a device once and kept there."""

    images: Tensor  # (n, C, H, W) uint8 or float32
    targets: Tensor  # (n,) or (n, H, W) int64
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        if device not in self._on_device:
            self._on_device[device] = (self.images.to(device), self.targets.to(device))
        images, targets = self._on_device[device]
        for rows, numbers in zip(indices, randoms, strict=False):
            rows = rows.to(device, non_blocking=True)
            yield images[rows], targets[rows], numbers


@dataclass(frozen=True, eq=False)
class Streamed:
    """Samples that loader processes read while training goes on."""

    reader: Reader
    rows: Tensor  # (n,) int64: where in the source the samples are
    num_workers: int

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        requests = (
            (self.rows[rows.cpu()].numpy(), None if numbers is None else numbers.cpu().numpy())
            for rows, numbers in zip(indices, randoms, strict=False)
        )
        pin = device.type == "cuda"
        batches = stream(self.reader, requests, num_workers=self.num_workers, pin_memory=pin)
        for images, targets, numbers in batches:
            yield images.to(device, non_blocking=pin), targets.to(device, non_blocking=pin), numbers


@dataclass(frozen=True, eq=False)
class Normalisation:
    """inputs = images * scale + shift, channel by channel."""

    scale: Tensor  # (C, 1, 1) float32
    shift: Tensor  # (C, 1, 1) float32

    @classmethod
    def of(cls, mean: Tensor, std: Tensor) -> Normalisation:
        """From mean and standard deviation (C,) float64, in levels 0 to 255."""
        std = std.clamp(min=1.0)  # a channel that is the same everywhere stays finite
        return cls((1 / std)[:, None, None].float(), (-mean / std)[:, None, None].float())

    def to(self, device: torch.device) -> Normalisation:
        return Normalisation(self.scale.to(device), self.shift.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, as a loop needs it."""

    samples: Samples
    augmentation: Augmentation = "none"
    normalisation: Normalisation | None = None
    """None takes images as they are, as float32."""

    def __len__(self) -> int:
        return len(self.samples)

    def batches(
        self,
        indices: Sequence[Tensor],
        *,
        device: torch.device,
        randoms: Sequence[Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each (n,) int64 of `indices` inputs (n, C, H, W) float32 and targets, on `device`.

        `randoms` holds (n, NUM_RANDOMS) float32 in [0, 1) for each batch: the numbers that each
        sample is augmented by. None augments nothing, and so do splits for validation and testing.
        Targets are int64, (n,) or (n, H, W); those are cropped, flipped and turned with their
        images, and `IGNORED_PIXEL` where an image has nothing.
        """
        if randoms is not None and len(randoms) != len(indices):
            raise ValueError(f"{len(indices)} batches need as many randoms, got {len(randoms)}")
        numbers = repeat(None) if randoms is None or self.augmentation == "none" else randoms
        normalise = self.normalisation.to(device) if self.normalisation else torch.Tensor.float
        for images, targets, own in self.samples.fetch(indices, numbers, device):
            if own is not None:
                images = augment(images, own, self.augmentation)
                if targets.ndim == 3:
                    planes = targets[:, None]
                    targets = augment(planes, own, self.augmentation, fill=IGNORED_PIXEL)[:, 0]
            yield normalise(images), targets


def channel_statistics(samples: Samples, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) float64 of uint8 images, in levels 0 to 255.

    Over all samples, or over `NUM_STATISTICS` evenly spaced ones when there are more. Counts of
    levels are added up, so the result is exact and the same however the samples are read.
    """
    step = -(-len(samples) // NUM_STATISTICS)
    rows = torch.arange(0, len(samples), step).split(batch_size)
    counts: Tensor | int = 0
    for images, _, _ in samples.fetch(rows, repeat(None), torch.device("cpu")):
        planes = images.transpose(0, 1).flatten(1)  # (C, pixels)
        counts = counts + torch.stack([plane.bincount(minlength=256) for plane in planes])
    assert isinstance(counts, Tensor), "a split has at least one sample"
    weights = counts.double() / counts[0].sum()  # (C, 256)
    levels = torch.arange(256, dtype=torch.float64)
    mean = weights @ levels
    return mean, ((levels - mean[:, None]).square() * weights).sum(1).sqrt()
