"""Nests of tensors: a tensor, or dictionaries, lists and tuples of them, as models take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], nest: Any) -> Any:
    """The nest with `function` of each tensor in its place; what is no tensor stays."""
    return map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, nest)


def map_leaves(function: Callable[[Any], Any], nest: Any) -> Any:
    """The nest with `function` of each leaf in its place, whatever that is."""
    if isinstance(nest, Mapping):
        return {key: map_leaves(function, value) for key, value in nest.items()}
    if isinstance(nest, tuple):
        values = [map_leaves(function, value) for value in nest]
        return type(nest)(*values) if hasattr(nest, "_fields") else tuple(values)
    if isinstance(nest, list):
        return [map_leaves(function, value) for value in nest]
    return function(nest)


def tensors_in(nest: Any) -> Iterator[Tensor]:
    """Every tensor of a nest."""
    return (leaf for leaf in leaves_in(nest) if isinstance(leaf, Tensor))


def leaves_in(nest: Any) -> Iterator[Any]:
    """Everything in a nest that is no dictionary, list or tuple."""
    if isinstance(nest, Mapping | list | tuple):
        for value in nest.values() if isinstance(nest, Mapping) else nest:
            yield from leaves_in(value)
    else:
        yield nest


def as_tensors(value: Any) -> Any:
    """A sample's numbers and arrays as tensors, Python's floats as torch's default kind."""
    if isinstance(value, Mapping):
        return {key: as_tensors(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(as_tensors, value))
    if isinstance(value, list):
        return list(map(as_tensors, value))
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        return torch.as_tensor(value)
    return value


def num_bytes(nest: Any) -> int:
    """What the tensors of a nest take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(nest))


def num_samples(nest: Any) -> int | None:
    """The first dimension that all tensors of a nest have; None where they differ."""
    sizes = {len(tensor) if tensor.ndim else None for tensor in tensors_in(nest)}
    return next(iter(sizes)) if len(sizes) == 1 else None
