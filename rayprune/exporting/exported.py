"""What an export made and measured, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A network in one format, and how near it is to torch's."""

    format: str
    """As --to has it: "onnx", "packed"."""
    files: tuple[str, ...]
    """Names inside the folder, the weights first."""
    num_bytes: int
    """On disk, of all files together."""
    zlib_bytes: int
    """After zlib, level 6, as most transfers compress."""
    runtime: str
    """What reads it, with its version."""
    difference: float | None
    """Largest absolute difference of an output to the same network's in torch; None if not
    compared."""
    tolerance: float | None
    """What the difference may be."""
    metrics: Mapping[str, float]
    """test_… measured with this file; empty if it was not run."""
    load: str
    """Lines of Python that load it and compute outputs."""
    note: str = ""
    """What else a user of it should know."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one batch takes, and how that compares with the fastest dense network."""

    file: str
    """Name inside the folder."""
    runtime: str
    threads: int
    batch: int
    """Samples at once."""
    median_ms: float
    spread_ms: float
    """Between the quartiles of the runs."""
    dense_runtime: str
    """The fastest of the runtimes that ran the dense network."""
    dense_ms: float
    """Its median."""
    speedup: float
    """Median of dense / this over runs that took turns: above 1 is faster."""
    load_average: float
    """Of the machine over the minute before, its own runs left in."""
    machine: str
    """Its processor, and how many cores."""
