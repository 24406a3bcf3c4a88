"""The base of every configuration value."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: no field is set later, no unknown field is taken, and equal values hash equally.

    Equal are values of one class whose fields are equal and of one type, also inside dictionaries:
    1, 1.0 and True differ, as they do in a stage's key. So a cache may be keyed by values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frozen) or type(self) is not type(other):
            return False
        return _hashable(dict(self)) == _hashable(dict(other))

    def __hash__(self) -> int:
        return hash((type(self), _hashable(dict(self))))


def _hashable(value: Any) -> Hashable:
    """The value with its dictionaries and lists, which have no hash, turned into ones that have."""
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, set | frozenset):
        return frozenset(map(_hashable, value))
    return type(value), value
