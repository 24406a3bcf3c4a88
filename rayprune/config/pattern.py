"""The names of pruning patterns, and the sparsity that n:m leaves no choice about."""

from __future__ import annotations

import re

TOLERANCE = 1e-6  # so that 2:3 may be written with sparsity 0.333333


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """Return n and m of an "n:m" pattern, 0 < n < m; None for "unstructured" and "filter".

    Raises a ``ValueError`` for any other pattern.
    """
    if pattern in ("unstructured", "filter"):
        return None
    match = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", pattern)
    if match and int(match[1]) < int(match[2]):
        return int(match[1]), int(match[2])
    raise ValueError(
        f"pattern must be unstructured, filter, or n:m with 0 < n < m such as 2:4, got {pattern!r}"
    )


def check_sparsity(pattern: str, sparsity: float) -> None:
    """Raise a ``ValueError`` unless `sparsity` is what `pattern` removes: 1 - n/m where it is n:m.

    It may be off by 1e-6. Every sparsity suits the other patterns.
    """
    numbers = n_of_m(pattern)
    if numbers is None:
        return
    n, m = numbers
    if abs(sparsity - (1 - n / m)) > TOLERANCE:
        raise ValueError(
            f"pattern {pattern} removes exactly {1 - n / m:g} of the weights, "
            f"got sparsity {sparsity:g}. Write sparsity: {1 - n / m:g}"
        )
