"""Counts of channels that are multiples of a number, for kernels that are fast at these.

All functions take name -> numbers of filters that stay, as real numbers, and are the same on every
machine.
"""

import math
from collections.abc import Mapping


def at_least(
    kept: Mapping[str, float], least: Mapping[str, int], sizes: Mapping[str, int], goal: float
) -> dict[str, float]:
    """Layers below their least are raised to it; the others give way, all by the same factor.

    `sizes` are weights of a filter, and `goal` is how many weights are to stay in all. It must be
    possible: the weights of the least filters are at most the goal.
    """
    counts = dict(kept)
    free = list(kept)
    while low := [name for name in free if counts[name] < least[name]]:
        counts |= {name: least[name] for name in low}
        free = [name for name in free if name not in low]
        rest = goal - sum(counts[name] * sizes[name] for name in counts if name not in free)
        factor = rest / max(sum(kept[name] * sizes[name] for name in free), 1)
        counts |= {name: factor * kept[name] for name in free}
    return counts


def to_multiples(
    kept: Mapping[str, float],
    left: Mapping[str, int],
    sizes: Mapping[str, int],
    multiple: int,
    goal: float,
) -> dict[str, int]:
    """Each layer's count, rounded to a multiple, or to the `left` filters that there are.

    Of the multiples below and above a count, the nearer one; then layers change over to the other
    one, whichever brings the weights that stay nearest to `goal`, as long as one brings them
    nearer. `sizes` are weights of a filter.

    >>> to_multiples({"a": 13, "b": 14}, {"a": 16, "b": 16}, {"a": 1, "b": 1}, 8, 26)
    {'a': 8, 'b': 16}
    """
    pairs = {name: _around(kept[name], left[name], multiple) for name in kept}
    rounded = {name: min(pair, key=lambda n: abs(n - kept[name])) for name, pair in pairs.items()}
    while True:
        off = sum(rounded[name] * sizes[name] for name in kept) - goal
        other = {name: sum(pair) - rounded[name] for name, pair in pairs.items()}
        after = {name: abs(off + (other[name] - rounded[name]) * sizes[name]) for name in kept}
        best = min(kept, key=lambda name: after[name])
        if after[best] >= abs(off):
            return rounded
        rounded[best] = other[best]


def _around(count: float, left: int, multiple: int) -> tuple[int, int]:
    """The multiples below and above, at least one and at most what is left."""
    low = max(math.floor(count / multiple), 1) * multiple
    high = max(math.ceil(count / multiple), 1) * multiple
    return min(low, left), min(high, left)
