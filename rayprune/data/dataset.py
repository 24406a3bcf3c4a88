"""From the description of a data set to its three parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rayprune import config
from rayprune.config.preprocessing import Preprocessing
from rayprune.data.augment import Augmentation
from rayprune.data.check import check_data
from rayprune.data.class_numbers import numbered_classes
from rayprune.data.function import open_function
from rayprune.data.named import open_named
from rayprune.data.nests import map_tensors
from rayprune.data.parquet import open_parquet
from rayprune.data.preprocessing import levels_of, said_of, with_size
from rayprune.data.reader import Reader, read_all, read_all_nests, readable_rows
from rayprune.data.reading import Reading, how_to_read, side_of
from rayprune.data.sources import (
    IGNORED_PIXEL,
    Source,
    Sources,
    TensorRows,
    are_images,
    check_classes,
)
from rayprune.data.splits import (
    InMemory,
    Normalisation,
    Samples,
    Split,
    Streamed,
)


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
    reading = how_to_read(data, sources, has_classes)
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
    levels = levels_of(data, reading, samples["train"], trained)
    normalisation = None if levels is None else Normalisation.of(*levels)
    repeated = reading.num_channels if reading.is_repeated else None

    def split(name: str, augmentation: Augmentation = "none") -> Split:
        is_of_images = reading.shape is not None
        return Split(samples[name], augmentation, normalisation, repeated, is_of_images)

    preprocessing = None if levels is None else said_of(data, reading, *levels)
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


def _samples(source: Source, data: config.Data, reading: Reading) -> Samples:
    reader = Reader(
        source,
        reading.shape,
        side_of(data),
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
