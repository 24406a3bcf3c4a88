"""What can be known of a data set without decoding an image: checked before Ray starts."""

from __future__ import annotations

from rayprune import config
from rayprune.config.target import find_target
from rayprune.data.function import FIELD
from rayprune.data.named import NAMES_WITH_ROOT, check_named
from rayprune.data.parquet_files import check_schema, find_parts


def check_data(data: config.Data) -> None:
    """Raise a `ValueError` that names the field when `data` cannot be loaded as described.

    Paths must exist, Parquet schemas have image and label columns, names be known and functions
    importable. Takes well under a second, the import of a user's own module apart.
    """
    if data.root is not None and data.name in (None, "fashion_mini"):
        raise ValueError(
            f"experiment.data.root goes with name: {', '.join(NAMES_WITH_ROOT)}, "
            f"got name: {data.name}. Leave root out, or write one of these names"
        )
    if data.kwargs and data.target is None:
        raise ValueError(
            "experiment.data.kwargs goes with target: package.module:function, got no target. "
            "Leave kwargs out"
        )
    if data.augment != "auto":
        check_augmentation(data.augment, data)
    if data.parquet is not None:
        for part in find_parts(data.parquet):
            check_schema(part, part.paths[0])  # loading looks at the others
    elif data.target is not None:
        find_target(data.target, FIELD)
    else:
        check_named(data.name or "fashion_mini", data.root)


def check_augmentation(augmentation: str, data: config.Data) -> None:
    """Raise a `ValueError` when the other fields do not let images be augmented this way."""
    if augmentation != "imagenet":
        return
    if data.resize is None:
        raise ValueError("experiment.data.augment: imagenet needs a size. Add data.resize: 224")
    if data.streaming == "never":
        raise ValueError(
            "experiment.data.streaming: never keeps images in their final size, but ImageNet's "
            "augmentation crops them before. Write streaming: auto, or augment: crop_flip"
        )
