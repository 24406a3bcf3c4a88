"""A local copy of a Parquet column that can be read in any order.

A Parquet file is read only by whole row groups: a shuffled batch of ImageNet would read
gigabytes. So the encoded images are copied once into an uncompressed Arrow file, which is then
mapped into memory: a row costs one read of its own bytes, and all processes share the pages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from rayprune.data.parquet_files import Part

SCHEMA = pa.schema([("image", pa.large_binary())])


def cache_folder() -> Path:
    """Where copies lie: RAYPRUNE_CACHE, or ~/.cache/rayprune. May be deleted while nothing runs."""
    return Path(os.environ.get("RAYPRUNE_CACHE") or Path.home() / ".cache" / "rayprune")


def mapped_column(part: Part, batches: Iterable[pa.Array]) -> pa.ChunkedArray:
    """The encoded images of a part, memory-mapped; `batches` are copied at the first call only.

    The copy is named by the column and the files' paths, sizes and times. Ranks of one machine
    wait for the one that writes. Raises a `ValueError` when the disk is too small.
    """
    infos = part.filesystem.get_file_info(list(part.paths))
    facts = (part.image_column, *((info.path, info.size, info.mtime_ns) for info in infos))
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.arrow"
    with FileLock(f"{copy}.lock"):
        if not copy.exists():
            size, free = sum(info.size for info in infos), shutil.disk_usage(folder).free
            if size > free:
                raise ValueError(
                    f"streaming Parquet needs {size / 1e9:.1f} GB for a copy that can be read in "
                    f"any order, and {folder} has {free / 1e9:.1f} GB. "
                    f"Set RAYPRUNE_CACHE to a folder on a larger disk"
                )
            _write(copy, batches)
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all().column("image")


def _write(copy: Path, batches: Iterable[pa.Array]) -> None:
    unfinished = copy.with_suffix(".unfinished")  # a writer that dies leaves no file named `copy`
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for blobs in batches:
            writer.write_batch(pa.record_batch([blobs], SCHEMA))
    unfinished.replace(copy)
