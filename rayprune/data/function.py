"""Data from a function of the user's, `experiment.data.target`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayprune.config.target import find_target
from rayprune.data.nests import leaves_in, num_samples, tensors_in
from rayprune.data.sources import DatasetRows, Source, Sources, TensorRows, as_levels

FIELD = "experiment.data.target"


def open_function(target: str, kwargs: Mapping[str, Any], *, has_classes: bool = True) -> Sources:
    """Return what the function `target` returns for `kwargs`, as sources.

    It must be a mapping with `train`, `test` and optionally `val`, each a tuple (inputs, targets)
    of tensors or nests of them, or a map-style dataset of (input, target); optionally `classes`,
    their names, and `collate`, which makes a batch (inputs, targets) of a list of samples. Images
    (C, H, W) in uint8 are normalised later; all else is taken as it is. With `has_classes` targets
    are class numbers. Raises a `ValueError` for anything else.
    """
    parts = find_target(target, FIELD)(**kwargs)
    if not isinstance(parts, Mapping) or not {"train", "test"} <= set(parts):
        got = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise ValueError(
            f"{FIELD} must return a mapping with train and test, got {got} of {target!r}"
        )
    unknown = set(parts) - {"train", "test", "val", "classes", "collate"}
    if unknown:
        raise ValueError(
            f"{FIELD}: {target!r} returns {min(unknown)!r}, "
            f"but only train, test, val, classes and collate are known"
        )
    collate = parts.get("collate")
    if collate is not None and not callable(collate):
        raise ValueError(f"{FIELD}: collate must be a function, got {collate!r:.80}")
    classes = parts.get("classes") or getattr(parts["train"], "classes", None)
    classes = tuple(map(str, classes)) if classes else None
    rows = {
        name: _rows(
            f"{FIELD}: {name}",
            parts[name],
            num_classes=len(classes) if classes else None,
            has_classes=has_classes,
            is_collated=collate is not None,
        )
        for name in ("train", "test", "val")
        if name in parts
    }
    return Sources(rows["train"], rows["test"], rows.get("val"), classes, collate)


def _rows(
    name: str, part: Any, *, num_classes: int | None, has_classes: bool, is_collated: bool
) -> Source:
    if not isinstance(part, tuple):
        if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            raise ValueError(
                f"{name} must be a tuple (inputs, targets) or a map-style dataset, "
                f"got {type(part).__name__}"
            )
        if len(part) == 0:
            raise ValueError(f"{name} is empty")
        return DatasetRows(name, part, num_classes, has_classes, is_collated)
    if len(part) != 2:
        raise ValueError(f"{name} must be (inputs, targets), got {len(part)} values")
    inputs, targets = part
    lengths = num_samples(inputs), num_samples(targets)
    if None in lengths or lengths[0] != lengths[1]:
        raise ValueError(
            f"{name} must be (inputs, targets), tensors or nests of tensors with a first dimension "
            f"that all share, got {_shapes(inputs)} and {_shapes(targets)}"
        )
    other = next((leaf for leaf in leaves_in(part) if not isinstance(leaf, Tensor)), None)
    if other is not None:
        raise ValueError(
            f"{name} must be (inputs, targets) of tensors alone, got {type(other).__name__} among "
            "them. Make a tensor of it, or leave it out"
        )
    if lengths[0] == 0:
        raise ValueError(f"{name} is empty")
    if has_classes:
        targets = _class_numbers(name, targets)
    if isinstance(inputs, Tensor) and (inputs.dtype == torch.uint8 or inputs.ndim == 4):
        if inputs.ndim != 4:
            raise ValueError(
                f"{name}: images must be (n, C, H, W), got {tuple(inputs.shape)} of uint8. Give "
                "what is no image as int64"
            )
        inputs = as_levels(inputs, name)
    return TensorRows(name, inputs, targets)


def _shapes(nest: Any) -> str:
    shapes = [str(tuple(tensor.shape)) for tensor in tensors_in(nest)]
    return ", ".join(shapes) or type(nest).__name__


def _class_numbers(name: str, targets: Any) -> Tensor:
    if not isinstance(targets, Tensor):
        raise ValueError(
            f"{name}: targets must be class numbers, one tensor, got {type(targets).__name__}. For "
            "other targets write a task of your own, experiment.task.target"
        )
    if targets.is_floating_point() or targets.ndim not in (1, 3):
        raise ValueError(
            f"{name}: targets must be class numbers, (n,) or (n, H, W) integers, "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    return targets.to(torch.int64)
