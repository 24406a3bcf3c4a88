"""Samples of a source brought to one shape: one by one, all at once, or by loader processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from rayprune.config.preprocessing import Interpolation
from rayprune.data.augment import center_crop, grey, random_resized_crop
from rayprune.data.nests import leaves_in, map_leaves, map_tensors
from rayprune.data.sources import BadSampleError, Collate, Source

Request = tuple[np.ndarray, np.ndarray | None]
"""Rows (n,) and their random numbers (n, NUM_RANDOMS): NumPy, since sending a slice of a tensor
to another process would send all of its storage."""

CHUNK = 256  # rows that one thread or process reads at a time
NUMBERS = Tensor | np.ndarray | np.generic | bool | int | float  # what can be stacked
A_COLLATE = "which makes a batch of a list of samples"
SMALL_IMAGE = 64 * 64  # pixels below which threads cost more than they bring


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads samples of `source`, images among them in one `shape` (C, H, W)."""

    source: Source
    shape: tuple[int, int, int] | None
    """None: inputs are no images, and are taken as they are."""
    side: int | None = None
    """Side that images of any size are brought to; None: all have `shape`, or it is an error."""
    is_imagenet: bool = False
    """Crop at random as for ImageNet where random numbers are given."""
    crop: float = 1.0
    """Part of the shorter side that a centre crop keeps, in (0, 1]."""
    interpolation: Interpolation = "bilinear"
    collate: Collate | None = None
    """Samples -> a batch of inputs and targets; None stacks them."""

    def __call__(self, row: int, numbers: Sequence[float] | None = None) -> tuple[Any, Any]:
        """Input and target; `numbers` are the sample's NUM_RANDOMS random numbers."""
        image, target = self.source[row]
        if self.shape is None:
            return image, target
        if image.shape[0] == 3 > self.shape[0]:
            image = grey(image)
        if self.side is not None and self.is_imagenet and numbers is not None:
            image = random_resized_crop(image, numbers, self.side, self.interpolation)
        elif self.side is not None:
            image = center_crop(image, self.side, self.crop, self.interpolation)
        if image.shape != self.shape:
            raise ValueError(
                f"{self.source.place(row)}: images must have one shape, "
                f"got {tuple(image.shape)} after {self.shape}. Write experiment.data.resize: <side>"
            )
        return image.contiguous(), target  # decoders give all kinds of strides


def batch_of(samples: list[Any], collate: Collate | None, place: str) -> tuple[Any, Any]:
    """Inputs and targets of a batch, by the user's `collate` or stacked.

    `place` is where the samples are, for messages. Raises a ``ValueError`` where neither works.
    """
    if collate is None:
        return stacked(samples, place)
    batch = collate(samples)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            f"{place}: collate must return (inputs, targets), got {type(batch).__name__}"
        )
    inputs, targets = map_leaves(_array_as_tensor, (batch[0], batch[1]))
    return inputs, targets


def _array_as_tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf


def stacked(samples: list[Any], place: str) -> tuple[Any, Any]:
    """A batch of inputs and targets: tensors of equal shapes, one on the other.

    Raises a ``ValueError`` for samples of different shapes or kinds; `place` is where they are.
    """
    other = next((leaf for leaf in leaves_in(samples[0]) if not isinstance(leaf, NUMBERS)), None)
    if other is not None:
        raise ValueError(
            f"{place}: a sample must be tensors, arrays and numbers, got {type(other).__name__}. "
            f"Leave it out, or return `collate` beside train and test, {A_COLLATE}"
        )
    try:
        batch = default_collate(samples)
    except (RuntimeError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{place}: samples of a batch must have equal shapes, or your function must return "
            f"`collate` beside train and test, {A_COLLATE} ({reason})"
        ) from error
    inputs, targets = _with_tuples(samples[0], batch)
    return inputs, targets


def _with_tuples(sample: Any, batch: Any) -> Any:
    """The batch with tuples where the sample has them; `default_collate` makes lists of them."""
    if isinstance(sample, Mapping):
        return {name: _with_tuples(sample[name], inner) for name, inner in batch.items()}
    if not isinstance(sample, tuple | list):
        return batch
    values = [_with_tuples(one, inner) for one, inner in zip(sample, batch, strict=True)]
    if hasattr(sample, "_fields"):
        return type(sample)(*values)
    return tuple(values) if isinstance(sample, tuple) else values


def read_all_nests(reader: Reader, *, on_bad: str) -> tuple[Any, Any]:
    """Inputs and targets of all rows, without those skipped, where inputs are no images."""
    samples = []
    for row in range(len(reader.source)):
        try:
            samples.append(reader(row))
        except BadSampleError:
            if on_bad == "error":
                raise
    if not samples:
        raise ValueError(_none_readable(reader))
    return stacked(samples, reader.source.place(0))


def _none_readable(reader: Reader) -> str:
    num, place = len(reader.source), reader.source.place(0)
    return f"none of {num} samples can be read, first {place}"


def read_all(
    reader: Reader, dtype: torch.dtype, *, num_threads: int, on_bad: str
) -> tuple[Tensor, Any]:
    """Images (n, C, H, W) and targets of all rows in their order, without those skipped."""
    assert reader.shape is not None, "these are images"
    images = torch.empty(len(reader.source), *reader.shape, dtype=dtype)
    targets: list[Any] = [None] * len(images)

    def read(start: int) -> None:
        for row in range(start, min(start + CHUNK, len(images))):
            try:
                images[row], targets[row] = reader(row)
            except BadSampleError:
                if on_bad == "error":
                    raise

    starts = range(0, len(images), CHUNK)
    if num_threads > 1 and reader.shape[1] * reader.shape[2] > SMALL_IMAGE:
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(read, starts))
    else:
        for start in starts:
            read(start)
    good = [target for target in targets if target is not None]
    if not good:
        raise ValueError(_none_readable(reader))
    if len(good) < len(images):
        images = images[torch.tensor([target is not None for target in targets])]
    _, stacked_targets = stacked([(0, target) for target in good], reader.source.place(0))
    return images, stacked_targets


def readable_rows(reader: Reader, *, num_workers: int) -> Tensor:
    """Rows (k,) that can be read, found by reading every one once."""
    starts = range(0, len(reader.source), CHUNK)
    found = _loader(_ReadableRows(reader), starts, num_workers)
    return torch.cat([torch.empty(0, dtype=torch.int64), *found])


def stream(
    reader: Reader, requests: Iterable[Request], *, num_workers: int, pin_memory: bool
) -> Iterator[tuple[Any, Any, Tensor | None]]:
    """For each request inputs, targets and its random numbers, in their order."""
    for batch in _loader(_Batches(reader), requests, num_workers, pin_memory):
        if isinstance(batch, Exception):
            raise batch
        yield batch.inputs, batch.targets, batch.randoms


def _loader(dataset: Any, keys: Iterable[Any], num_workers: int, pin: bool = False) -> DataLoader:
    return DataLoader(
        dataset,
        sampler=keys,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin,
        generator=torch.Generator(),  # else it draws from the global one, which dropout uses
    )


@dataclass(frozen=True, eq=False)
class _Batch:
    """What a loader process sends: a value of ours, since DataLoader makes lists of tuples."""

    inputs: Any
    targets: Any
    randoms: Tensor | None

    def pin_memory(self) -> _Batch:
        """Called by DataLoader where it pins memory."""
        inputs, targets = map_tensors(Tensor.pin_memory, (self.inputs, self.targets))
        return _Batch(inputs, targets, self.randoms)


@dataclass(frozen=True, eq=False)
class _Batches:
    """A dataset of whole batches, keyed by requests."""

    reader: Reader

    def __getitem__(self, request: Request) -> Any:
        rows, randoms = request
        numbers = [None] * len(rows) if randoms is None else randoms.tolist()
        place = self.reader.source.place(int(rows[0]))
        try:
            samples = [self.reader(row, n) for row, n in zip(rows.tolist(), numbers, strict=True)]
            inputs, targets = batch_of(samples, self.reader.collate, place)
            return _Batch(inputs, targets, None if randoms is None else torch.from_numpy(randoms))
        except ValueError as error:
            return error  # a value, so that the user sees it without a loader process's traceback


@dataclass(frozen=True, eq=False)
class _ReadableRows:
    """A dataset of the readable rows among CHUNK, keyed by the first."""

    reader: Reader

    def __getitem__(self, start: int) -> Tensor:
        rows = range(start, min(start + CHUNK, len(self.reader.source)))
        return torch.tensor([row for row in rows if self._is_readable(row)], dtype=torch.int64)

    def _is_readable(self, row: int) -> bool:
        try:
            self.reader(row)
        except BadSampleError:
            return False
        return True
