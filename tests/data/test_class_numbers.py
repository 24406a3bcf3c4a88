from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rayprune.data.class_numbers import NO_LABEL, is_label, to_classes


def place(row: int) -> str:
    return f"file, row {row}"


def classes_of(
    labels: Any, classes: tuple[str, ...] | None = None
) -> tuple[list[int], tuple[str, ...]]:
    column = (
        labels
        if isinstance(labels, pa.ChunkedArray)
        else pa.chunked_array([labels[:2], labels[2:]])
    )
    numbers, names = to_classes(column, classes, place)
    return numbers.tolist(), names


def test_names_are_sorted_into_numbers() -> None:
    expected = ([1, 0, 2, 1], ("ant", "bee", "cat"))
    labels = pa.array(["bee", "ant", "cat", "bee"])
    assert classes_of(labels) == expected
    assert classes_of(labels.cast(pa.large_string())) == expected
    assert classes_of(labels.dictionary_encode()) == expected


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()])
def test_numbers_stay(kind: pa.DataType) -> None:
    assert classes_of(pa.array([2, 0, 1, 0], kind)) == ([2, 0, 1, 0], ("0", "1", "2"))


def test_truth_values_are_two_classes() -> None:
    assert classes_of(pa.array([True, False, True])) == ([1, 0, 1], ("0", "1"))


def test_known_classes_may_be_absent() -> None:
    names = ("a", "b", "c", "d")
    assert classes_of(pa.array([3, 0, 3]), names) == ([3, 0, 3], names)
    assert classes_of(pa.array(["d", "a", "d"]), names) == ([3, 0, 3], names)


def test_rows_of_no_class_are_marked() -> None:
    assert classes_of(pa.array([0, None, -1, 1]))[0] == [0, NO_LABEL, NO_LABEL, 1]
    assert classes_of(pa.array([0, 2, 1]), ("a", "b"))[0] == [0, NO_LABEL, 1]
    assert classes_of(pa.array(["a", None, "z"]), ("a", "b"))[0] == [0, NO_LABEL, NO_LABEL]


@pytest.mark.parametrize(("numbers", "row", "gap"), [([1, 3, 2, 3], 1, 0), ([0, 1, 7, 7], 2, 2)])
def test_a_gap_is_an_error_with_its_row(numbers: list[int], row: int, gap: int) -> None:
    with pytest.raises(ValueError, match=f"file, row {row}: class .* while {gap} never occurs"):
        classes_of(pa.array(numbers))


def test_only_whole_numbers_and_text_are_labels() -> None:
    good = [pa.int32(), pa.bool_(), pa.string(), pa.dictionary(pa.int32(), pa.string())]
    assert all(map(is_label, good))
    bad = [pa.float64(), pa.list_(pa.int64()), pa.binary(), pa.timestamp("s"), pa.null()]
    assert not any(map(is_label, bad))
