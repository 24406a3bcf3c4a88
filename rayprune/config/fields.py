"""Dotted paths of an experiment's fields: which there are, and what stands there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from rayprune.config.experiment import Experiment
from rayprune.config.messages import nearest


def is_field(path: str) -> bool:
    """Whether an experiment has, or in a free dictionary such as model.kwargs may have, it."""
    return any(True for _ in _types(Experiment, path.split(".")))


def is_whole(path: str) -> bool:
    """Whether what stands there is a whole number."""
    kinds = set(_types(Experiment, path.split(".")))
    return int in kinds and float not in kinds


def value_at(holder: Any, path: str) -> Any:
    """What stands there in a value or a dictionary; None where there is nothing."""
    for key in path.split("."):
        holder = holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)
    return holder


def meant(path: str, also: Collection[str] = ()) -> str:
    """A hint at the field, or the word of `also`, that was meant by a path that is none."""
    near = difflib.get_close_matches(path, also, 1)
    return f" Did you mean {near[0]}?" if near else nearest(Experiment, path.split("."))


def _types(annotation: Any, keys: list[str]) -> Iterator[Any]:
    """The plain types that may stand at the end of `keys`."""
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0], keys)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not keys:
            yield annotation
        elif keys[0] in annotation.model_fields:
            yield from _types(annotation.model_fields[keys[0]].annotation, keys[1:])
    elif get_origin(annotation) is dict:
        yield Any if keys else annotation
    elif not keys and not get_args(annotation):
        yield annotation
    else:  # a union, or a value that has no fields
        for option in get_args(annotation):
            if isinstance(option, str):  # of a Literal
                yield from [] if keys else [str]
            else:
                yield from _types(option, keys)
