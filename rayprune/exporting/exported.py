"""What an export made and measured, as plain values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayprune.config.brought import MASKS, MODEL, PROVENANCE
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
TIMED = ("onnx", "int8", "mnn")  # formats whose files a runtime's process can time
_WITH_LOADERS = ("packed", "small", "torch_sparse", "semi_structured")
ALL_FILES = frozenset(
    {MODEL, MASKS, PROVENANCE, "model.onnx", "model.onnx.data", "model.int8.onnx", "model.mnn"}
    | {f"{name}{end}" for name in _WITH_LOADERS for end in (".safetensors", ".py")}
)
"""Every name that some format writes."""


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


def check_formats(names: Sequence[str], latencies_of: tuple[int, int] | None = None) -> None:
    """Raises ``ValueError`` for no format, an unknown one, or one whose packages are missing.

    And for threads or samples of a pass that are none, or that no file of these is timed with.
    """
    if isinstance(names, str):
        raise ValueError(f"formats must be a list of names, got {names!r}. Write [{names!r}]")
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
    if latencies_of is None:
        return
    for what, number in zip(("threads", "batch"), latencies_of, strict=True):
        if number < 1:
            raise ValueError(f"{what} must be 1 or more, got {number}")
    if not {*names} & {*TIMED}:
        raise ValueError(
            f"latencies are measured of {', '.join(TIMED)}, and of none of {', '.join(names)}. Add "
            "one of these, or leave the measuring out"
        )
