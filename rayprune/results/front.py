"""The Pareto front: points that no other point beats."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]  # a value for each goal, more of it better


def dominates(one: Point, other: Point) -> bool:
    """Whether one is as good in every goal, and better in at least one."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def undominated(points: Sequence[Point]) -> list[int]:
    """Numbers of the points on the Pareto front, in their order; equal points are all on it."""
    different = set(points)
    front = {point for point in different if not any(dominates(o, point) for o in different)}
    return [number for number, point in enumerate(points) if point in front]
