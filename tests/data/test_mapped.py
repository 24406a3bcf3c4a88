from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from made_images import encode, make_images, parquet_set, write_parquet

from rayprune.data.mapped import mapped_column
from rayprune.data.parquet_files import find_parts


def test_the_copy_is_made_once(tmp_path: Path) -> None:
    part, _ = find_parts(parquet_set(tmp_path))
    blobs = [pa.array([b"one", b"two"], pa.large_binary()), pa.array([None], pa.large_binary())]
    assert mapped_column(part, blobs).to_pylist() == [b"one", b"two", None]
    assert mapped_column(part, iter([])).to_pylist() == [b"one", b"two", None]


def test_a_changed_file_makes_a_new_copy(tmp_path: Path) -> None:
    part, _ = find_parts(parquet_set(tmp_path))
    mapped_column(part, [pa.array([b"old"], pa.large_binary())])
    write_parquet(tmp_path / "train.parquet", [encode(make_images(1)[0])], [0])
    again = mapped_column(part, [pa.array([b"new"], pa.large_binary())])
    assert again.to_pylist() == [b"new"]


def test_columns_of_one_file_have_copies_of_their_own(tmp_path: Path) -> None:
    part, _ = find_parts(parquet_set(tmp_path))
    mapped_column(part, [pa.array([b"one"], pa.large_binary())])
    other = mapped_column(
        replace(part, image_column="depth"), [pa.array([b"two"], pa.large_binary())]
    )
    assert other.to_pylist() == [b"two"]


def test_a_writer_that_dies_leaves_no_copy(tmp_path: Path, cache: Path) -> None:
    part, _ = find_parts(parquet_set(tmp_path))

    def dies() -> object:
        yield pa.array([b"half"], pa.large_binary())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapped_column(part, dies())  # type: ignore[arg-type]
    assert not list(cache.glob("*.arrow"))
    whole = [pa.array([b"whole"], pa.large_binary())]
    assert mapped_column(part, whole).to_pylist() == [b"whole"]


def test_a_full_disk_is_said_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = find_parts(parquet_set(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="Set RAYPRUNE_CACHE to a folder on a larger disk"):
        mapped_column(part, [])
