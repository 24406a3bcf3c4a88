"""From the description of a data set to its three parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from rayprune import config
from rayprune.config.preprocessing import Interpolation, Preprocessing
from rayprune.data.augment import IMAGENET_CROP, Augmentation
from rayprune.data.check import check_augmentation, check_data
from rayprune.data.class_numbers import numbered_classes
from rayprune.data.function import open_function
from rayprune.data.named import open_named
from rayprune.data.nests import map_tensors, num_bytes
from rayprune.data.parquet import open_parquet
from rayprune.data.preprocessing import with_size
from rayprune.data.reader import Reader, batch_of, read_all, read_all_nests, readable_rows, stacked
from rayprune.data.sources import (
    IGNORED_PIXEL,
    BadSampleError,
    Collate,
    Source,
    Sources,
    TensorRows,
    are_images,
    check_classes,
    is_image,
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


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready to be trained on."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    """Names of the classes; empty where targets are no class numbers and nothing names them."""
    example: tuple[Any, Any]
    """A batch of one sample, of which only shapes and types count: inputs and targets. Images are
    zeros."""
    num_skipped: int
    """Samples left out of all parts because they cannot be read (`on_bad: skip`)."""
    preprocessing: Mapping[str, Any] | None = None
    """How images become inputs: mean and std (levels 0 to 1), resize, eval_crop, interpolation,
    channels; None where inputs are no images or are taken as they are."""

    @property
    def num_channels(self) -> int | None:
        """Colour channels of images; None where inputs are no images."""
        inputs = self.example[0]
        return inputs.shape[1] if are_images(inputs) else None


def load_data(
    data: config.Data,
    *,
    seed: int,
    has_classes: bool = True,
    trained: Preprocessing | None = None,
) -> Dataset:
    """The data set that `data` describes, its validation part drawn by `seed`.

    Small sets are held in memory, large ones are streamed; which of the two it is changes no batch.
    Without `has_classes` targets are taken as they are, and not checked. `trained` is what `auto`
    stands for where a network brings its weights. Raises a `ValueError` that
    names the field, or the file and row, of what is wrong.
    """
    check_data(data)
    data = with_size(data, trained)
    sources = open_sources(data, has_classes=has_classes)
    reading = _reading(data, sources, has_classes)
    parts = {"train": sources.train, "test": sources.test}
    if sources.val is not None:
        parts["val"] = sources.val
    samples = {name: _samples(source, data, reading) for name, source in parts.items()}
    num_skipped = sum(len(parts[name]) - len(samples[name]) for name in parts)
    classes = sources.classes or ()
    if has_classes:
        classes = classes or _count_classes(samples["train"], sources.train)
        for name in parts:
            _check_targets(samples[name], parts[name], classes)
    if "val" not in samples:
        train_rows, val_rows = split_rows(len(samples["train"]), data.val_fraction, seed=seed)
        whole = samples["train"]
        samples |= {"train": whole.take(train_rows), "val": whole.take(val_rows)}
    levels = _levels(data, reading, samples["train"], trained)
    normalisation = None if levels is None else Normalisation.of(*levels)
    repeated = reading.num_channels if reading.is_repeated else None

    def split(name: str, augmentation: Augmentation = "none") -> Split:
        return Split(samples[name], augmentation, normalisation, repeated)

    preprocessing = None if levels is None else _preprocessing(data, reading, *levels)
    return Dataset(
        split("train", reading.augmentation),
        split("val"),
        split("test"),
        classes,
        reading.example,
        num_skipped,
        preprocessing,
    )


def open_sources(data: config.Data, *, has_classes: bool = True) -> Sources:
    """Where the samples of `data` come from; reads labels, and no image but the first few."""
    if data.parquet is not None:
        return open_parquet(data.parquet, on_bad=data.on_bad)
    if data.target is not None:
        return open_function(data.target, data.kwargs, has_classes=has_classes)
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
    """How samples are read: nothing in it depends on how many processes do it."""

    shape: tuple[int, int, int] | None
    """Of images as they are kept; None for other inputs."""
    dtype: torch.dtype
    augmentation: Augmentation
    is_streamed: bool
    example: tuple[Any, Any]
    num_channels: int = 0
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    collate: Collate | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether grey images become coloured ones, as late as that can be."""
        return self.shape is not None and self.num_channels != self.shape[0]


def _reading(data: config.Data, sources: Sources, has_classes: bool) -> _Reading:
    sample = _first_sample(sources.train, data.on_bad)
    num = len(sources.train) + len(sources.test) + len(sources.val or ())
    if sources.collate is not None or not is_image(sample[0]):
        return _reading_of_nests(data, sources, sample, num)
    image, target = sample
    channels, height, width = image.shape
    side = _side(data)
    kept = 1 if data.channels == 1 else channels
    wanted = data.channels or channels
    if wanted != channels and {wanted, channels} != {1, 3}:
        raise ValueError(
            f"experiment.data.channels: {wanted} is made of 1 or 3 channels, the images have "
            f"{channels}. Leave it out"
        )
    shape = (kept, side or height, side or width)
    is_large = num * prod(shape) * image.dtype.itemsize > LARGE_BYTES
    is_plain = isinstance(target, Tensor) and target.ndim == 0
    augmentation: Augmentation
    if data.augment != "auto":
        augmentation = data.augment
    elif side and is_large and is_plain and has_classes:
        augmentation = "imagenet"
    else:
        augmentation = "crop_flip" if channels == 3 and is_plain and has_classes else "none"
    _check_targets_move_along(augmentation, side, target, has_classes)
    check_augmentation(augmentation, data)
    must_stream = data.streaming == "always" or augmentation == "imagenet"
    _, targets = stacked([(0, target)], sources.train.place(0))
    interpolation = "bilinear" if data.interpolation == "auto" else data.interpolation
    crop = IMAGENET_CROP if augmentation == "imagenet" else 1.0
    return _Reading(
        shape,
        image.dtype,
        augmentation,
        is_streamed=must_stream or (data.streaming == "auto" and is_large),
        example=(torch.zeros(1, wanted, *shape[1:]), targets),
        num_channels=wanted,
        crop=crop if data.eval_crop == "auto" else data.eval_crop,
        interpolation=interpolation,
    )


def _reading_of_nests(
    data: config.Data, sources: Sources, sample: tuple[Any, Any], num: int
) -> _Reading:
    """Samples that are taken as they are; those that have a collate are read as they are needed."""
    for field in ("resize", "channels"):
        if getattr(data, field) is not None:
            raise ValueError(f"experiment.data.{field} is of images, and inputs here are none")
    for field in ("augment", "normalize"):
        if getattr(data, field) not in ("auto", "none"):
            raise ValueError(
                f"experiment.data.{field} is of images, and inputs here are none. Do it in your "
                f"function, and leave {field} out"
            )
    must_stream = data.streaming == "always" or sources.collate is not None
    is_large = num * num_bytes(sample) > LARGE_BYTES and not isinstance(sources.train, TensorRows)
    example = batch_of([sample], sources.collate, sources.train.place(0))
    return _Reading(
        None,
        torch.float32,
        "none",
        is_streamed=must_stream or (data.streaming == "auto" and is_large),
        example=example,
        collate=sources.collate,
    )


def _check_targets_move_along(
    augmentation: Augmentation, side: int | None, target: Any, has_classes: bool
) -> None:
    is_plane = not isinstance(target, Tensor) or target.ndim > 0
    if has_classes and is_plane and (side or augmentation == "imagenet"):
        raise ValueError(
            "experiment.data: targets that are images can be cropped and flipped, not resized. "
            "Resize images and targets in your function, without resize and augment: imagenet"
        )
    if not has_classes and is_plane and (side or augmentation != "none"):
        raise ValueError(
            "experiment.data: targets of a task of your own do not move along with their images. "
            "Resize and augment in your dataset, without resize and augment"
        )


def _first_sample(source: Source, on_bad: str) -> tuple[Any, Any]:
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
    reader = Reader(
        source,
        reading.shape,
        _side(data),
        reading.augmentation == "imagenet",
        reading.crop,
        reading.interpolation,
        reading.collate,
    )
    if reading.is_streamed:
        reader = replace(reader, source=source.streamed())
        rows = torch.arange(len(source))
        if data.on_bad == "skip":  # all ranks must agree on what there is, before the first batch
            rows = readable_rows(reader, num_workers=data.loader_workers)
        return Streamed(reader, rows, data.loader_workers)
    if isinstance(source, TensorRows) and (reading.shape is None or _is_kept(source, reader)):
        return InMemory(map_tensors(Tensor.contiguous, source.inputs), source.targets)
    if reading.shape is None:
        return InMemory(*read_all_nests(reader, on_bad=data.on_bad))
    return InMemory(
        *read_all(reader, reading.dtype, num_threads=data.loader_workers, on_bad=data.on_bad)
    )


def _is_kept(source: TensorRows, reader: Reader) -> bool:
    """Whether images are kept as they are."""
    return reader.side is None and source.inputs.shape[1:] == reader.shape


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


def _levels(
    data: config.Data, reading: _Reading, train: Samples, trained: Preprocessing | None
) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation (C,) float64 of levels 0 to 255 that inputs are normalised by.

    With auto those that weights were `trained` with, else ImageNet's for its augmentation, else
    what the training part says. They never depend on whether images are streamed. None for what is
    taken as it is.
    """
    chosen, channels = data.normalize, reading.num_channels
    if reading.shape is None:
        return None
    if reading.dtype != torch.uint8:
        if chosen not in ("auto", "none"):
            raise ValueError(
                "experiment.data.normalize is of uint8 images, and these are floats, which are "
                "taken as they are. Leave normalize out, or return uint8"
            )
        return None
    if chosen == "none":
        zeros = torch.zeros(channels, dtype=torch.float64)
        return zeros, zeros + 255
    if isinstance(chosen, config.Normalize):
        return _given_levels(chosen, channels)
    if chosen == "imagenet" and channels != 3:
        raise ValueError(
            f"experiment.data.normalize: imagenet is of 3 channels, these images have {channels}. "
            "Add data.channels: 3"
        )
    if chosen == "auto" and trained is not None:
        return _given_levels(trained, channels)
    if chosen == "imagenet" or (reading.augmentation == "imagenet" and channels == 3):
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = channel_statistics(train)
    return mean.expand(channels), std.clamp(min=1.0).expand(channels)


def _side(data: config.Data) -> int | None:
    """The side that images are brought to, once `auto` was looked up."""
    assert data.resize != "auto", "with_size has replaced it"
    return data.resize


def _given_levels(given: config.Normalize | Preprocessing, channels: int) -> tuple[Tensor, Tensor]:
    if len(given.mean) not in (1, channels):
        raise ValueError(
            f"experiment.data.normalize is of {len(given.mean)} channels, these images have "
            f"{channels}. {_other_channels(len(given.mean), channels)}"
        )
    both = (255 * torch.tensor(numbers, dtype=torch.float64) for numbers in (given.mean, given.std))
    mean, std = both
    return mean.expand(channels), std.expand(channels)


def _other_channels(wanted: int, channels: int) -> str:
    if {wanted, channels} == {1, 3}:
        return f"Add data.channels: {wanted}"
    return "Write data.normalize: none, or {mean: [0.5], std: [0.5]}"


def _preprocessing(
    data: config.Data, reading: _Reading, mean: Tensor, std: Tensor
) -> dict[str, Any]:
    """What a record says, for whoever uses the network elsewhere."""
    return {
        "mean": (mean / 255).tolist(),
        "std": (std / 255).tolist(),
        "resize": data.resize,
        "eval_crop": reading.crop if data.resize else None,
        "interpolation": reading.interpolation if data.resize else None,
        "channels": reading.num_channels,
    }
