"""Image-struct Parquet, the layout of image data sets on the Hugging Face hub.

`image: struct<bytes, path>` (or plain bytes), a label column of class numbers or names, and class
names in the schema's metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from rayprune import config
from rayprune.data.class_numbers import NO_LABEL, is_text, to_classes
from rayprune.data.images import Mode, common_mode, decode_image
from rayprune.data.mapped import mapped_column
from rayprune.data.parquet_files import Part, check_schema, class_names, find_parts
from rayprune.data.sources import BadSampleError, Sources

NUM_FIRST = 16  # images that are looked at before all are read


def open_parquet(files: config.ParquetFiles, *, on_bad: str) -> Sources:
    """Both parts with their labels checked; images are read when they are asked for."""
    train_part, test_part = find_parts(files)
    labels, train_names = _read_labels(train_part)
    test_labels, test_names = _read_labels(test_part)
    if train_names and test_names and train_names != test_names:
        raise ValueError(
            f"experiment.data.parquet: train and test name their classes differently, "
            f"{train_names} and {test_names}, so their numbers mean different things"
        )
    if is_text(labels.type) != is_text(test_labels.type):
        raise ValueError(
            f"experiment.data.parquet.label_column: must be of one kind in train and test, "
            f"got {labels.type} and {test_labels.type}"
        )
    numbers, classes = to_classes(labels, train_names or test_names, train_part.place)
    test_numbers, _ = to_classes(test_labels, classes, test_part.place)
    first = _first_blobs(train_part)
    mode = common_mode(first)
    train = ParquetRows(train_part, numbers, labels, mode, first)
    test = ParquetRows(test_part, test_numbers, test_labels, mode)
    if on_bad == "error":
        train.check_labels()
        test.check_labels()
    return Sources(train, test, classes=classes)


def _read_labels(part: Part) -> tuple[pa.ChunkedArray, tuple[str, ...] | None]:
    """The label column of all files, and the class names in the first one's schema."""
    schemas = [check_schema(part, path) for path in part.paths]
    tables = [part.open(path).read(columns=[part.label_column]) for path in part.paths]
    chunks = [chunk for table in tables for chunk in table.column(0).chunks]
    types = {table.column(0).type for table in tables}
    if len(types) > 1:
        raise ValueError(
            f"experiment.data.parquet.label_column: must have one type in all files of "
            f"{part.field}, got {', '.join(sorted(map(str, types)))}"
        )
    return pa.chunked_array(chunks, types.pop()), class_names(schemas[0], part.label_column)


def read_blobs(part: Part, path: str, *, batch_size: int = 1024) -> Iterator[pa.Array]:
    """The encoded images of one file, batch by batch, so that a large file is never held whole."""
    file = part.open(path)
    is_struct = pa.types.is_struct(file.schema_arrow.field(part.image_column).type)
    column = f"{part.image_column}.bytes" if is_struct else part.image_column
    for batch in file.iter_batches(batch_size, columns=[column]):
        images = batch.column(0)
        yield (pc.struct_field(images, "bytes") if is_struct else images).cast(pa.large_binary())


def _first_blobs(part: Part) -> tuple[bytes, ...]:
    for path in part.paths:
        for blobs in read_blobs(part, path, batch_size=NUM_FIRST):
            return tuple(blob or b"" for blob in blobs.to_pylist())
    return ()


@dataclass(frozen=True, eq=False)
class ParquetRows:
    """Samples of one part's files, one after the other."""

    part: Part
    numbers: Tensor  # (n,) int64
    labels: pa.ChunkedArray  # as they stand in the files, for messages
    mode: Mode
    first: tuple[bytes, ...] = ()  # the first images, so that a look at them reads no whole file
    is_mapped: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if self.numbers[row] == NO_LABEL:
            raise BadSampleError(self.place(row), self._label_problem(row))
        blob = self.first[row] if row < len(self.first) else self.blobs[row].as_py()
        if not blob:
            raise BadSampleError(self.place(row), "the image has no bytes")
        try:
            return decode_image(blob, self.mode), self.numbers[row]
        except ValueError as error:
            raise BadSampleError(self.place(row), str(error)) from error

    def place(self, row: int) -> str:
        return self.part.place(row)

    def streamed(self) -> ParquetRows:
        rows = replace(self, is_mapped=True)
        # Files are opened here, never in a forked loader process, where a file system's threads
        # would be missing.
        _ = rows.blobs, rows.place(0)
        return rows

    def check_labels(self) -> None:
        """Raises `BadSampleError` for the first row without a valid label."""
        bad = (self.numbers == NO_LABEL).nonzero()
        if len(bad):
            raise BadSampleError(self.place(int(bad[0])), self._label_problem(int(bad[0])))

    @cached_property
    def blobs(self) -> pa.ChunkedArray:
        """Encoded images of all files: in memory, or in a memory-mapped copy that is cached."""
        batches = (blobs for path in self.part.paths for blobs in read_blobs(self.part, path))
        if self.is_mapped:
            return mapped_column(self.part, batches)
        return pa.chunked_array(batches, pa.large_binary())

    def _label_problem(self, row: int) -> str:
        label = self.labels[row].as_py()
        if label is None:
            return f"{self.part.label_column} is missing"
        return f"{self.part.label_column} {label!r} is no class of the training part"

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes map the copy anew instead of getting its content sent."""
        return {key: value for key, value in self.__dict__.items() if key != "blobs"}
