"""Batches of a data set's parts: from memory or streamed; images augmented and normalised there.

Both ways lead to the same batches, bit for bit, for the same indices and random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from rayprune.data.augment import Augmentation, augment
from rayprune.data.nests import map_tensors, tensors_in
from rayprune.data.reader import Reader, stream
from rayprune.data.sources import IGNORED_PIXEL, are_images

NUM_STATISTICS = 16_384  # images that mean and std are taken over; their error is then about .1 %


class Samples(Protocol):
    """Where a split's samples lie."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Samples: ...

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Any, Any, Tensor | None]]:
        """For each (n,) of `indices` inputs and targets on `device`, and random numbers."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """All samples as tensors, brought to a device once and kept there."""

    inputs: Any  # nest of (n, ...); images (n, C, H, W) uint8 or float32
    targets: Any  # nest of (n, ...); class numbers (n,) or (n, H, W) int64
    _on_device: dict[torch.device, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(next(tensors_in(self.inputs)))

    def take(self, rows: Tensor) -> InMemory:
        """The samples at `rows` (n,)."""
        return InMemory(*map_tensors(lambda whole: whole[rows], (self.inputs, self.targets)))

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Any, Any, Tensor | None]]:
        if device not in self._on_device:
            self._on_device[device] = map_tensors(
                lambda whole: whole.to(device), (self.inputs, self.targets)
            )
        for rows, numbers in zip(indices, randoms, strict=False):
            rows = rows.to(device, non_blocking=True)
            inputs, targets = map_tensors(itemgetter(rows), self._on_device[device])
            yield inputs, targets, numbers


@dataclass(frozen=True, eq=False)
class Streamed:
    """Samples that loader processes read while training goes on."""

    reader: Reader
    rows: Tensor  # (n,) int64: where in the source the samples are
    num_workers: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> Streamed:
        """The samples at `rows` (n,)."""
        return replace(self, rows=self.rows[rows])

    def fetch(
        self, indices: Iterable[Tensor], randoms: Iterable[Tensor | None], device: torch.device
    ) -> Iterator[tuple[Any, Any, Tensor | None]]:
        requests = (
            (self.rows[rows.cpu()].numpy(), None if numbers is None else numbers.cpu().numpy())
            for rows, numbers in zip(indices, randoms, strict=False)
        )
        pin = device.type == "cuda"
        batches = stream(self.reader, requests, num_workers=self.num_workers, pin_memory=pin)
        for inputs, targets, numbers in batches:
            moved = map_tensors(lambda t: t.to(device, non_blocking=pin), (inputs, targets))
            yield *moved, numbers


@dataclass(frozen=True, eq=False)
class Normalisation:
    """inputs = images * scale + shift, channel by channel."""

    scale: Tensor  # (C, 1, 1) float32
    shift: Tensor  # (C, 1, 1) float32

    @classmethod
    def of(cls, mean: Tensor, std: Tensor) -> Normalisation:
        """From mean and standard deviation (C,) float64, in levels 0 to 255.

        A channel that is the same everywhere is divided by 1.
        """
        std = std.clamp(min=1.0)
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
    num_channels: int | None = None
    """Channels that grey images are repeated to; None leaves them."""
    is_of_images: bool = True
    """Whether inputs that look like a batch of images are one; else all are taken as they are."""

    def __len__(self) -> int:
        return len(self.samples)

    def first(self, num: int, device: torch.device) -> tuple[Any, Any]:
        """Inputs and targets of the first `num` samples, or of all if there are fewer."""
        here = replace(self, samples=_here(self.samples))
        rows = torch.arange(min(num, len(self)))
        inputs, targets = next(here.batches([rows], device=device))
        return inputs, targets

    def batches(
        self,
        indices: Sequence[Tensor],
        *,
        device: torch.device,
        randoms: Sequence[Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each (n,) int64 of `indices` inputs and targets, on `device`.

        Images become (n, C, H, W) float32; inputs and targets of other kinds are as the data has
        them, nests of tensors.

        `randoms` holds (n, NUM_RANDOMS) float32 in [0, 1) for each batch: the numbers that each
        sample is augmented by. None augments nothing, and so do splits for validation and testing.
        Target images, (n, H, W) int64, are cropped, flipped and turned with their images, and
        `IGNORED_PIXEL` where an image has nothing.
        """
        if randoms is not None and len(randoms) != len(indices):
            raise ValueError(f"{len(indices)} batches need as many randoms, got {len(randoms)}")
        numbers = repeat(None) if randoms is None or self.augmentation == "none" else randoms
        normalise = self.normalisation.to(device) if self.normalisation else torch.Tensor.float
        for inputs, targets, own in self.samples.fetch(indices, numbers, device):
            if not (self.is_of_images and are_images(inputs)):
                yield inputs, targets
                continue
            if own is not None:
                inputs = augment(inputs, own, self.augmentation)
                if isinstance(targets, Tensor) and targets.ndim == 3:
                    planes = targets[:, None]
                    targets = augment(planes, own, self.augmentation, fill=IGNORED_PIXEL)[:, 0]
            if self.num_channels is not None:
                inputs = inputs.expand(-1, self.num_channels, -1, -1)
            yield normalise(inputs), targets


def _here(samples: Samples) -> Samples:
    """Read in this process: a loader's processes are too much for one batch."""
    return replace(samples, num_workers=0) if isinstance(samples, Streamed) else samples


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
