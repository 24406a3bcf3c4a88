"""What an export made and measured, as plain values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayprune.exporting.process import missing

CARD = "README.md"
NEEDS = {  # format -> what it needs beside torch, as `process.missing` knows it
    "safetensors": None,
    "packed": None,
    "onnx": "onnx",
    "int8": "onnx",
    "mnn": "mnn",
    "small": "small",
    "torch_sparse": None,
    "semi_structured": None,
}
FORMAT_NAMES = tuple(NEEDS)


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
    """Largest difference to the outputs of the network in torch, over the largest of these; None if
    not compared."""
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


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export came to."""

    folder: str
    """Where its files lie: a path or a URI."""
    files: tuple[ExportedFile, ...]
    latencies: tuple[Latency, ...]
    """Of the files that a runtime can time, if that was asked for."""
    reported: Mapping[str, float]
    """The metrics on the test split that the study measured."""


def check_formats(names: Sequence[str]) -> None:
    """Raises ``ValueError`` for no format, an unknown one, or one whose packages are missing."""
    if not names:
        raise ValueError(f"no format is named. There are {', '.join(FORMAT_NAMES)}")
    for name in names:
        if name not in NEEDS:
            near = difflib.get_close_matches(name, FORMAT_NAMES, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"no format {name!r}.{hint} There are {', '.join(FORMAT_NAMES)}")
        needed = NEEDS[name]
        if needed is not None and (reason := missing(needed)):
            raise ValueError(f"format {name} {reason}")
