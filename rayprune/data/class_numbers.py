"""Class numbers out of a label column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

NO_LABEL = -1
"""Number of a row whose label is missing, negative, or of no known class."""


def is_text(column_type: pa.DataType) -> bool:
    """Whether labels of this type are class names, not numbers."""
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    return pa.types.is_string(column_type) or pa.types.is_large_string(column_type)


def is_label(column_type: pa.DataType) -> bool:
    """Whether labels of this type are class numbers or names."""
    whole = pa.types.is_integer(column_type) or pa.types.is_boolean(column_type)
    return whole or is_text(column_type)


def to_classes(
    labels: pa.ChunkedArray, classes: tuple[str, ...] | None, place: Callable[[int], str]
) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers, (n,) int64, and class names.

    Without known `classes`, names are sorted, and numbers must be 0 to the largest without a gap.
    Rows without a valid label get `NO_LABEL`. Raises a `ValueError` that says which number is
    missing, and with `place` where the largest one stands.
    """
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if is_text(labels.type):
        names = labels.cast(pa.string())
        classes = classes or tuple(sorted(names.drop_null().unique().to_pylist()))
        numbers = pc.index_in(names, value_set=pa.array(classes, pa.string()))
    else:
        numbers = labels.cast(pa.int64())
    numbers = numbers.cast(pa.int64()).fill_null(NO_LABEL).to_numpy()
    if classes is None:
        classes = numbered_classes(numbers, place)
    numbers = np.where((numbers >= 0) & (numbers < len(classes)), numbers, NO_LABEL)
    return torch.from_numpy(numbers), classes


def numbered_classes(numbers: np.ndarray, place: Callable[[int], str]) -> tuple[str, ...]:
    """Names "0", "1", … of the class numbers that occur; negative ones are no class."""
    present = np.unique(numbers[numbers >= 0])
    gaps = np.setdiff1d(np.arange(len(present)), present)
    if len(gaps):
        raise ValueError(
            f"{place(int(np.argmax(numbers == present[-1])))}: class {present[-1]} while {gaps[0]} "
            f"never occurs; class numbers must be 0 to the number of classes - 1. "
            f"Number the {len(present)} classes from 0"
        )
    return tuple(map(str, range(len(present))))
