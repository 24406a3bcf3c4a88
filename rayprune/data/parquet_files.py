"""Which Parquet files a data set has, and whether their columns are images and labels."""

from __future__ import annotations

import bisect
import json
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rayprune import config
from rayprune.data.class_numbers import is_label
from rayprune.fingerprint import find_files


@dataclass(frozen=True)
class Part:
    """The Parquet files of one part, in the order of their paths."""

    field: str  # such as "experiment.data.parquet.train"
    filesystem: fs.FileSystem
    paths: tuple[str, ...]
    image_column: str
    label_column: str

    def open(self, path: str) -> pq.ParquetFile:
        """One of the files; a `ValueError` when it is no Parquet."""
        try:
            return pq.ParquetFile(self.filesystem.open_input_file(path))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{self.field}: {path} is not readable Parquet: {error}") from error

    def place(self, row: int) -> str:
        """File and row in it of the row-th of all rows."""
        index = bisect.bisect_right(self._ends, row)
        start = self._ends[index - 1] if index else 0
        return f"{self.field}: {self.paths[index]}, row {row - start}"

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.open(path).metadata.num_rows for path in self.paths))


def find_parts(files: config.ParquetFiles) -> tuple[Part, Part]:
    """Training and test files; a `ValueError` when there are none, or the same ones twice."""
    train, test = _find_part(files, "train"), _find_part(files, "test")
    both = set(train.paths) & set(test.paths)
    if both:
        raise ValueError(
            f"experiment.data.parquet: train and test must have no file in common, "
            f"but both have {min(both)}. Write globs, such as {os.path.dirname(min(both))}/train-*"
        )
    return train, test


def _find_part(files: config.ParquetFiles, name: str) -> Part:
    field, location = f"experiment.data.parquet.{name}", getattr(files, name)
    try:
        filesystem, paths = find_files(location)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{field}: cannot look into {location}: {error}") from error
    if not paths:
        raise ValueError(
            f"{field} must be a Parquet file, a folder of them or a glob, "
            f"but nothing is there, got {location}"
        )
    return Part(field, filesystem, tuple(paths), files.image_column, files.label_column)


def check_schema(part: Part, path: str) -> pa.Schema:
    """The schema of one file; a `ValueError` when its columns are no images and labels."""
    schema = part.open(path).schema_arrow
    for field, column in (("image_column", part.image_column), ("label_column", part.label_column)):
        if column not in schema.names:
            raise ValueError(
                f"experiment.data.parquet.{field}: {path} has no column {column!r}, "
                f"only {', '.join(schema.names)}. Write the name of one of them"
            )
    image, label = schema.field(part.image_column).type, schema.field(part.label_column).type
    has_bytes = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not (has_bytes or pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise ValueError(
            f"experiment.data.parquet.image_column: {part.image_column!r} of {path} must be "
            f"struct<bytes: binary, path: string> or binary, got {image}"
        )
    if not is_label(label):
        raise ValueError(
            f"experiment.data.parquet.label_column: {part.label_column!r} of {path} must hold "
            f"class numbers (integers from 0) or class names (text), got {label}. Convert it"
        )
    return schema


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """The label column's class names in the Hugging Face metadata; None without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label_column]["names"]))
    except (KeyError, TypeError, ValueError):  # metadata of another kind: numbers are the names
        return None
