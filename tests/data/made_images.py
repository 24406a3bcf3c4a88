"""Small image sets made for tests, in the formats that real ones come in."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rayprune import config


def make_images(num: int, *, channels: int = 3, side: int = 12, seed: int = 0) -> np.ndarray:
    """(n, H, W) or (n, H, W, C) uint8."""
    shape = (num, side, side) if channels == 1 else (num, side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def write_parquet(
    path: Path,
    blobs: Sequence[bytes | None],
    labels: Sequence[Any] | pa.Array,
    *,
    classes: Sequence[str] | None = None,
    image: str = "image",
    label: str = "label",
) -> None:
    """An image-struct file as on the Hugging Face hub, four rows a row group."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([None if b is None else {"bytes": b, "path": None} for b in blobs], kind)
    table = pa.table({image: images, label: pa.array(labels)})
    if classes is not None:
        features = {
            image: {"_type": "Image"},
            label: {"_type": "ClassLabel", "names": list(classes)},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)


def parquet_set(
    folder: Path, *, num: int = 20, channels: int = 3, side: int = 12, num_classes: int = 3
) -> config.ParquetFiles:
    """`num` training and 8 test images; image i is of class i % num_classes."""
    for name, count, seed in (("train", num, 0), ("test", 8, 1)):
        images = make_images(count, channels=channels, side=side, seed=seed)
        labels = [i % num_classes for i in range(count)]
        write_parquet(folder / f"{name}.parquet", [encode(image) for image in images], labels)
    return config.ParquetFiles(
        train=str(folder / "train.parquet"), test=str(folder / "test.parquet")
    )
