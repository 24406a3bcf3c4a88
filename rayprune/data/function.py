"""Data from a function of the user's, `experiment.data.target`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayprune.config.target import find_target
from rayprune.data.sources import DatasetRows, Source, Sources, TensorRows, as_levels

FIELD = "experiment.data.target"


def open_function(target: str, kwargs: Mapping[str, Any]) -> Sources:
    """Return what the function `target` returns for `kwargs`, as sources.

    It must be a mapping with `train`, `test` and optionally `val`, each a tuple (images, targets)
    of tensors or a map-style dataset of (image, target), and optionally `classes`, their names.
    uint8 images are normalised later; float images are taken as they are. Raises a `ValueError` for
    anything else.
    """
    parts = find_target(target, FIELD)(**kwargs)
    if not isinstance(parts, Mapping) or not {"train", "test"} <= set(parts):
        got = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise ValueError(
            f"{FIELD} must return a mapping with train and test, got {got} of {target!r}"
        )
    unknown = set(parts) - {"train", "test", "val", "classes"}
    if unknown:
        raise ValueError(
            f"{FIELD}: {target!r} returns {min(unknown)!r}, "
            f"but only train, test, val and classes are known"
        )
    classes = parts.get("classes") or getattr(parts["train"], "classes", None)
    classes = tuple(map(str, classes)) if classes else None
    rows = {
        name: _rows(f"{FIELD}: {name}", part, len(classes) if classes else None)
        for name, part in parts.items()
        if name != "classes"
    }
    return Sources(rows["train"], rows["test"], rows.get("val"), classes)


def _rows(name: str, part: Any, num_classes: int | None) -> Source:
    if not isinstance(part, tuple):
        if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            raise ValueError(
                f"{name} must be a tuple (images, targets) or a map-style dataset, "
                f"got {type(part).__name__}"
            )
        return DatasetRows(name, part, num_classes)
    if len(part) != 2 or not all(isinstance(tensor, Tensor) for tensor in part):
        raise ValueError(f"{name} must be (images, targets), two tensors, got {part!r:.80}")
    images, targets = part
    if images.ndim != 4 or len(images) != len(targets):
        raise ValueError(
            f"{name}: images must be (n, C, H, W) with a target for each, "
            f"got {tuple(images.shape)} and targets {tuple(targets.shape)}"
        )
    if targets.is_floating_point() or targets.ndim not in (1, 3):
        raise ValueError(
            f"{name}: targets must be class numbers, (n,) or (n, H, W) integers, "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    return TensorRows(name, as_levels(images, name), targets.to(torch.int64))
