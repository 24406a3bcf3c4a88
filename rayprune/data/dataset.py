"""From the description of a data set to its three parts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from rayprune import config
from rayprune.data.augment import Augmentation
from rayprune.data.check import check_augmentation, check_data
from rayprune.data.class_numbers import numbered_classes
from rayprune.data.function import open_function
from rayprune.data.named import open_named
from rayprune.data.parquet import open_parquet
from rayprune.data.reader import Reader, read_all, readable_rows
from rayprune.data.sources import (
    IGNORED_PIXEL,
    BadSampleError,
    Source,
    Sources,
    TensorRows,
    check_classes,
)
from rayprune.data.splits import (
    InMemory,
    Normalisation,
    Samples,
    Split,
    Streamed,
    channel_statistics,
)

LARGE_BYTES = 4e9  # decoded images that are rather streamed than held on the device
NUM_FIRST = 16  # samples among which one must be readable, to know the images' shape

# Levels 0 to 255; what torchvision's and timm's weights were trained with.
IMAGENET_MEAN = 255 * torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
IMAGENET_STD = 255 * torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


@dataclass(frozen=True)
class Dataset:
    """A data set, ready to be trained on."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # channels, height, width
    num_skipped: int
    """Samples left out of all parts because they cannot be read (`on_bad: skip`)."""


def load_data(data: config.Data, *, seed: int) -> Dataset:
    """The data set that `data` describes, its validation part drawn by `seed`.

    Small sets are decoded into memory, large ones are streamed; which of the two it is changes no
    batch. Raises a `ValueError` that names the field, or the file and row, of what is wrong.
    """
    check_data(data)
    sources = open_sources(data)
    reading = _reading(data, sources)
    parts = {"train": sources.train, "test": sources.test}
    if sources.val is not None:
        parts["val"] = sources.val
    samples = {name: _samples(source, data, reading) for name, source in parts.items()}
    num_skipped = sum(len(parts[name]) - len(samples[name]) for name in parts)
    classes = sources.classes or _count_classes(samples["train"], sources.train)
    for name in parts:
        _check_targets(samples[name], parts[name], classes)
    if "val" not in samples:
        train_rows, val_rows = split_rows(len(samples["train"]), data.val_fraction, seed=seed)
        whole = samples["train"]
        samples |= {"train": _take(whole, train_rows), "val": _take(whole, val_rows)}
    normalisation = _normalisation(reading, samples["train"])
    return Dataset(
        Split(samples["train"], reading.augmentation, normalisation),
        Split(samples["val"], "none", normalisation),
        Split(samples["test"], "none", normalisation),
        classes,
        reading.shape,
        num_skipped,
    )


def open_sources(data: config.Data) -> Sources:
    """Where the samples of `data` come from; reads labels, and no image but the first few."""
    if data.parquet is not None:
        return open_parquet(data.parquet, on_bad=data.on_bad)
    if data.target is not None:
        return open_function(data.target, data.kwargs)
    return open_named(data.name or "fashion_mini", data.root, on_bad=data.on_bad)


def split_rows(num: int, val_fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the training and of the validation part, each ascending.

    Validation takes round(num * val_fraction) rows, halves to even, but leaves at least one to each
    part.
    """
    if num < 2:
        raise ValueError(f"the training part must have 2 samples and more to be split, got {num}")
    num_val = min(max(round(num * val_fraction), 1), num - 1)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    return order[num_val:].sort().values, order[:num_val].sort().values


@dataclass(frozen=True)
class _Reading:
    """How images are read: nothing in it depends on how many processes do it."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    augmentation: Augmentation
    is_streamed: bool


def _reading(data: config.Data, sources: Sources) -> _Reading:
    image, target = _first_sample(sources.train, data.on_bad)
    channels, height, width = image.shape
    shape = (channels, data.resize or height, data.resize or width)
    num = len(sources.train) + len(sources.test) + len(sources.val or ())
    is_large = num * prod(shape) * image.dtype.itemsize > LARGE_BYTES
    augmentation: Augmentation
    if data.augment != "auto":
        augmentation = data.augment
    elif data.resize and is_large and target.ndim == 0:
        augmentation = "imagenet"
    else:
        augmentation = "crop_flip" if channels == 3 and target.ndim == 0 else "none"
    if target.ndim and (data.resize or augmentation == "imagenet"):
        raise ValueError(
            "experiment.data: targets that are images can be cropped and flipped, not resized. "
            "Resize images and targets in your function, without resize and augment: imagenet"
        )
    check_augmentation(augmentation, data)
    must_stream = data.streaming == "always" or augmentation == "imagenet"
    is_streamed = must_stream or (data.streaming == "auto" and is_large)
    return _Reading(shape, image.dtype, augmentation, is_streamed)


def _first_sample(source: Source, on_bad: str) -> tuple[Tensor, Tensor]:
    for row in range(min(NUM_FIRST, len(source))):
        try:
            return source[row]
        except BadSampleError:
            if on_bad == "error":
                raise
    raise ValueError(
        f"experiment.data: the first {min(NUM_FIRST, len(source))} training samples are unreadable"
    )


def _samples(source: Source, data: config.Data, reading: _Reading) -> Samples:
    reader = Reader(source, reading.shape, data.resize, reading.augmentation == "imagenet")
    if reading.is_streamed:
        reader = Reader(source.streamed(), reader.shape, reader.side, reader.is_imagenet)
        rows = torch.arange(len(source))
        if data.on_bad == "skip":  # all ranks must agree on what there is, before the first batch
            rows = readable_rows(reader, num_workers=data.loader_workers)
        return Streamed(reader, rows, data.loader_workers)
    if isinstance(source, TensorRows) and data.resize is None:
        return InMemory(source.images.contiguous(), source.targets)
    return InMemory(
        *read_all(reader, reading.dtype, num_threads=data.loader_workers, on_bad=data.on_bad)
    )


def _take(samples: Samples, rows: Tensor) -> Samples:
    if isinstance(samples, Streamed):
        return Streamed(samples.reader, samples.rows[rows], samples.num_workers)
    assert isinstance(samples, InMemory)
    return InMemory(samples.images[rows], samples.targets[rows])


def _count_classes(samples: Samples, source: Source) -> tuple[str, ...]:
    if isinstance(samples, Streamed):
        raise ValueError(
            "experiment.data.target: a streamed data set does not show its classes. "
            "Return classes, a list of their names, beside train and test"
        )
    assert isinstance(samples, InMemory)
    targets = samples.targets
    if targets.ndim == 3:  # a class may well be in no pixel
        return tuple(map(str, range(int(targets[targets != IGNORED_PIXEL].max()) + 1)))
    return numbered_classes(targets.numpy(), source.place)


def _check_targets(samples: Samples, source: Source, classes: tuple[str, ...]) -> None:
    """Targets in memory must be class numbers; streamed ones are checked as they are read."""
    if isinstance(samples, InMemory):
        check_classes(samples.targets, len(classes), source.place)


def _normalisation(reading: _Reading, train: Samples) -> Normalisation | None:
    """ImageNet's constants with its augmentation, else what the training part says.

    It never depends on whether images are streamed. Float images are taken as they are.
    """
    if reading.dtype != torch.uint8:
        return None
    if reading.augmentation == "imagenet" and reading.shape[0] == 3:
        return Normalisation.of(IMAGENET_MEAN, IMAGENET_STD)
    return Normalisation.of(*channel_statistics(train))
