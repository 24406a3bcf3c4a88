"""What a trained network weighs and takes as a deployed file: kept beside the stage it is of."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from rayprune.config import Measure
from rayprune.results.files import measurement_file
from rayprune.results.stages import read_manifests
from rayprune.results.storage import read_bytes, read_side_by_side, write_bytes

log = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a trained network weighs and takes as a file in a runtime, beside the same network
    dense. The fields are columns of the results table."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    file_mb: Positive
    """The file on disk, in 10^6 bytes."""
    zlib_mb: Positive
    """The same after zlib: what a transfer takes."""
    latency_ms: Positive
    """Milliseconds of a pass over one batch, the median."""
    latency_spread_ms: NotNegative
    """The interquartile range of the passes: how far the middle half of them lies apart."""
    dense_latency_ms: Positive
    """Of the same network, dense, in the runtime that is fastest for it, in the same sequence."""
    dense_runtime: str
    """Which that was, with its version."""
    measured_speedup: Positive
    """The median of paired ratios dense / this; above 1 it is faster."""
    load_average: NotNegative
    """Of the machine in that minute."""
    measured_with: str
    """Runtime with version, threads and batch: "MNN 3.6.1, 1 thread, batch 1"."""
    machine: str
    """The CPU's model."""


_MEASUREMENT = TypeAdapter(Measurement)


def read_measurement(storage: str, key: str, measure: Measure) -> Measurement | None:
    """What was measured of a stage in that way; None if nothing was. Raises ``StorageError``."""
    file = measurement_file(storage, key, measure)
    content = read_bytes(file)
    try:
        return None if content is None else _MEASUREMENT.validate_json(content)
    except ValueError:
        log.warning("%s cannot be read: measuring the network again", file)
        return None


def read_measurements(
    storage: str, keys: Collection[str], measure: Measure
) -> dict[str, Measurement]:
    """The measurements that there are of many stages, by key. Raises ``StorageError``."""
    found = read_side_by_side(lambda key: read_measurement(storage, key, measure), keys)
    return {key: measurement for key, measurement in found.items() if measurement is not None}


def write_measurement(storage: str, key: str, measure: Measure, measurement: Measurement) -> None:
    """Keep what was measured of a stage.

    Raises ``ValueError`` for numbers that no measurement has, ``StorageError``.
    """
    content = json.dumps(asdict(measurement)).encode()
    _MEASUREMENT.validate_json(content)  # one that no reader takes would be measured for ever
    write_bytes(measurement_file(storage, key, measure), content)


class Measurements:
    """What is known to be measured of a study's stages; the storage is asked once for each."""

    def __init__(self, storage: str, measure: Measure | None) -> None:
        """Without `measure` nothing is known, and nothing missing."""
        self._storage, self._measure = storage, measure
        self._known: dict[str, Measurement] = {}
        self._asked: set[str] = set()
        self._missing: set[str] = set()

    def add(self, key: str, measurement: Measurement) -> None:
        """Take in what was measured just now, and is kept in the storage."""
        self._known[key] = measurement
        self._asked.add(key)
        self._missing.discard(key)

    def known(self, keys: Collection[str]) -> dict[str, Measurement]:
        """What there is of these stages. Raises ``StorageError``."""
        self._ask(keys)
        return {key: self._known[key] for key in keys if key in self._known}

    def missing(self, keys: Collection[str]) -> list[str]:
        """Those of these stages that are to be measured still, in their order.

        One whose manifest is gone, as of a dense run that was cleared away, cannot be measured.
        Raises ``StorageError``.
        """
        self._ask(keys)
        return [key for key in keys if key in self._missing]

    def _ask(self, keys: Collection[str]) -> None:
        new = [key for key in keys if key not in self._asked]
        if self._measure is None or not new:
            return
        self._known |= read_measurements(self._storage, new, self._measure)
        left = read_manifests(self._storage, [key for key in new if key not in self._known])
        self._missing |= {key for key, manifest in left.items() if manifest is not None}
        self._asked |= {*new}
