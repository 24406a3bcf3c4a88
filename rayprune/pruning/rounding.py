"""Counts of channels that are multiples of a number, for kernels that are fast at these.

All functions take name -> numbers of filters that stay, as real numbers, and are the same on every
machine.
"""

import math
from collections.abc import Mapping

import numpy as np


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
    tolerance: float = 0,
) -> dict[str, int]:
    """Each layer's count, rounded to a multiple, or to the `left` filters that there are.

    Of the multiples below and above a count, the nearer one; then layers change over to the other
    one, whichever brings the weights that stay nearest to `goal`, as long as one brings them
    nearer. Where they are not within `tolerance` of it then, one or two layers change at once, also
    by one multiple more. `sizes` are weights of a filter, `tolerance` is in weights.

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
            break
        rounded[best] = other[best]
    choices = {
        name: {*_around(low - multiple, left[name], multiple), low}
        | {high, *_around(high + multiple, left[name], multiple)}
        for name, (low, high) in pairs.items()
    }
    while abs(off) > tolerance:
        changes = _nearer(rounded, kept, choices, sizes, off, tolerance)
        if not changes:
            break
        rounded |= changes
        off = sum(rounded[name] * sizes[name] for name in kept) - goal
    return rounded


def _nearer(
    rounded: Mapping[str, int],
    kept: Mapping[str, float],
    choices: Mapping[str, set[int]],
    sizes: Mapping[str, int],
    off: float,
    tolerance: float,
) -> dict[str, int]:
    """Other counts of one or two layers that bring the weights nearer to the goal; {} if none do.

    Of those that bring them within the tolerance the one whose filters are fewest away from `kept`,
    or else the nearest to the goal; earlier layers first.
    """
    moves = [(name, n) for name, ns in choices.items() for n in sorted(ns - {rounded[name]})]
    layers = np.array([name for name, _ in moves])
    weights = np.array([(n - rounded[name]) * sizes[name] for name, n in moves], float)
    costs = np.array([abs(n - kept[name]) - abs(rounded[name] - kept[name]) for name, n in moves])
    best, found = (abs(off), -math.inf), {}
    for number, (name, n) in enumerate(moves):
        # Alone, then together with each later move of another layer.
        after = np.abs(off + weights[number] + np.append(0.0, weights[number + 1 :]))
        cost = costs[number] + np.append(0.0, costs[number + 1 :])
        after[1:][layers[number + 1 :] == name] = np.inf
        beyond = np.maximum(after, tolerance)
        first = int(np.lexsort((cost, beyond))[0])
        if (beyond[first], cost[first]) < best:
            best = float(beyond[first]), float(cost[first])
            found = dict([(name, n), moves[number + first]])  # twice the same where it is alone
    return found


def _around(count: float, left: int, multiple: int) -> tuple[int, int]:
    """The multiples below and above, at least one and at most what is left."""
    low = max(math.floor(count / multiple), 1) * multiple
    high = max(math.ceil(count / multiple), 1) * multiple
    return min(low, left), min(high, left)
