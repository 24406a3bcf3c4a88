"""Which dimensions of a search space follow from which, by their `equals` and `when`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from rayprune.config.expression import names
from rayprune.config.fields import is_field, meant

if TYPE_CHECKING:
    from rayprune.config.study import Dimension


def in_order(space: Mapping[str, Dimension]) -> tuple[str, ...]:
    """The names of a space's dimensions, each after all that it follows from.

    Raises a ``ValueError`` that names a circle.
    """
    ordered: dict[str, None] = {}
    for name in space:
        _append(space, name, (), ordered)
    return tuple(ordered)


def followed(space: Mapping[str, Dimension], name: str) -> Collection[str]:
    """A dimension and all that it follows from, directly or not."""
    found: dict[str, None] = {}
    _append(space, name, (), found)
    return found


def sources(space: Mapping[str, Dimension], name: str) -> Collection[str]:
    """The dimensions that one follows from, directly."""
    dimension = space[name]
    return used(space, [text for text in (dimension.when, dimension.equals) if text is not None])


def used(space: Mapping[str, Dimension], texts: Collection[str]) -> Collection[str]:
    """The dimensions that expressions name, by their own name or by a field that they set."""
    words = [word for text in texts for word in names(text)]
    return [
        other
        for other in (space if words else ())
        if any(word == other or _overlaps(word, paths_set(space, other)) for word in words)
    ]


def paths_set(space: Mapping[str, Dimension], name: str) -> Collection[str]:
    """The paths that a dimension sets: a case's, whose own name is a label, or its name."""
    cases = space[name].cases
    return [name] if cases is None else [path for case in cases.values() for path in case]


def mistakes_in(text: str | None, place: str, space: Mapping[str, Dimension]) -> Iterator[str]:
    """What is wrong with an expression: its grammar, or a name in it."""
    if text is None:
        return
    try:
        used = names(text)
    except ValueError as error:
        yield f"{place}: {error}"
        return
    for name in used:
        if name not in space and not is_field(name):
            yield f"{place} {text!r}: no field or dimension {name}.{meant(name, space)}"


def _append(
    space: Mapping[str, Dimension], name: str, asking: tuple[str, ...], ordered: dict[str, None]
) -> None:
    if name in ordered:
        return
    if name in asking:
        circle = " -> ".join([*asking[asking.index(name) :], name])
        raise ValueError(f"{circle}: each of these follows from the next. Break the circle")
    for source in sources(space, name):
        _append(space, source, (*asking, name), ordered)
    ordered[name] = None


def _overlaps(word: str, paths: Collection[str]) -> bool:
    return any(f"{word}.".startswith(f"{p}.") or f"{p}.".startswith(f"{word}.") for p in paths)
