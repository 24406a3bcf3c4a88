"""A trained network in the formats that are asked for: written, run, compared, measured, described.

Everything is made in a folder of its own and moved to its place at the end, the card last: an
export that fails leaves what was there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from rayprune.config import Experiment
from rayprune.exporting.card import Card, make_card
from rayprune.exporting.deployed import TOLERANCE, largest_difference, metrics_on_test
from rayprune.exporting.exported import CARD, Exported, ExportedFile, Latency
from rayprune.exporting.formats import ALL_FILES, FORMATS, Made
from rayprune.exporting.measure import Bench, machine
from rayprune.exporting.model_files import versions, write_model
from rayprune.exporting.network import Network, trained_network
from rayprune.exporting.process import RuntimeProcess
from rayprune.exporting.sizes import zlib_size
from rayprune.exporting.workplace import Workplace
from rayprune.results.storage import StorageError, delete, local_path, reason_of, write_bytes
from rayprune.snapshot import Snapshot

Say = Callable[[str], None]
"""Hears what is being done."""


def export(
    snapshot: Snapshot,
    experiment: Experiment,
    folder: str,
    formats: Sequence[str],
    *,
    about: Mapping[str, Any],
    latencies_of: tuple[int, int] | None = None,
    say: Say = lambda doing: None,
) -> Exported:
    """Write a trained network in these formats into a folder, with a card; what lay there goes.

    Each file is run on real test images: outputs must be torch's, and the metrics of the whole test
    split are measured with it. `latencies_of` are the threads and the samples of a pass for which
    latencies are measured.

    Raises ``ValueError`` where the network cannot be exported to a format, or a file's outputs are
    others; ``StorageError`` where it cannot be written. Nothing is left then.
    """
    network = trained_network(snapshot, experiment)
    with _workshop(folder) as work, RuntimeProcess(work) as process:
        place = Workplace(network, work, process, latencies_of[1] if latencies_of else 1)
        made = {}
        for name in formats:
            say(f"writing {name}")
            if name == "safetensors":
                write_model(snapshot, experiment, str(work), about)
            made[name] = FORMATS[name](place)
        files = []
        for name, each in made.items():
            say(f"running {each.files[0]} on the test split")
            files.append(_checked(name, each, place))
        latencies: tuple[Latency, ...] = ()
        if latencies_of:
            say("measuring latencies")
            latencies = _latencies(place, made, *latencies_of)
        exported = Exported(
            folder=folder, files=tuple(files), latencies=latencies, reported=_reported(network)
        )
        _publish(exported, work, _card(exported, network, about))
    return exported


def _checked(name: str, made: Made, place: Workplace) -> ExportedFile:
    """Compare a file with the network on test images. Raises ``ValueError`` if it is another."""
    network, module = place.network, made.module()
    difference = largest_difference(network, module)
    if made.is_exact and not difference <= TOLERANCE:
        raise ValueError(
            f"{made.files[0]} is another network than torch's: its outputs differ by "
            f"{difference:.1e} of the largest one, and rounding explains {TOLERANCE:.0e}. Nothing "
            f"was exported; leave {name} out"
        )
    paths = [place.folder / file for file in made.files]
    return ExportedFile(
        format=name,
        files=made.files,
        num_bytes=paths[0].stat().st_size,
        zlib_bytes=zlib_size(paths[0]),
        runtime=place.process.version_of(made.runtime),
        difference=difference,
        tolerance=TOLERANCE if made.is_exact else None,
        metrics=metrics_on_test(network, module),
        load=made.load,
        note=made.note,
    )


def _latencies(
    place: Workplace, made: Mapping[str, Made], threads: int, batch: int
) -> tuple[Latency, ...]:
    """Of each file in each runtime that runs it."""
    files = [
        (runtime, place.folder / each.files[0])
        for each in made.values()
        for runtime in each.timed_in
    ]
    bench = Bench(place.folder, place.process, threads, batch)
    times = bench.time(place.network, files) if files else []
    return tuple(
        Latency(
            file=path.name,
            runtime=place.process.version_of(runtime),
            threads=threads,
            batch=batch,
            machine=machine(),
            **asdict(time),
        )
        for (runtime, path), time in zip(files, times, strict=True)
    )


def _reported(network: Network) -> dict[str, float]:
    metrics = network.record.metrics
    return {name: value for name, value in metrics.items() if name.startswith("test_")}


def _card(exported: Exported, network: Network, about: Mapping[str, Any]) -> str:
    inputs, _ = network.dataset.example
    return make_card(
        Card(
            study=str(about["study"]),
            trial=str(about["trial"]),
            experiment=network.experiment,
            record=network.record,
            files=exported.files,
            latencies=exported.latencies,
            input_shape=tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else None,
            num_classes=len(network.dataset.classes) or None,
            versions=versions(),
            lower_is_better=tuple(network.task.lower_is_better),
        )
    )


def _publish(exported: Exported, work: Path, card: str) -> None:
    """Move the files to their place, the card last; what an earlier export left there goes."""
    delete(f"{exported.folder}/{CARD}")
    names = [name for file in exported.files for name in file.files]
    for name in sorted(ALL_FILES - {*names}):
        delete(f"{exported.folder}/{name}")
    for name in names:
        write_bytes(f"{exported.folder}/{name}", (work / name).read_bytes())
    write_bytes(f"{exported.folder}/{CARD}", card.encode())


@contextmanager
def _workshop(folder: str) -> Iterator[Path]:
    """A folder for what is being made: inside the export's own, unless that is no local one."""
    inside = local_path(folder)
    if inside is None:
        with tempfile.TemporaryDirectory(prefix="rayprune-") as made:
            yield Path(made)
        return
    is_new = not os.path.isdir(inside)
    try:
        os.makedirs(inside, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=inside) as made:
            yield Path(made)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot export to {folder}: {reason_of(error)}") from error
    finally:
        if is_new:
            with suppress(OSError):  # not empty: it is written
                os.rmdir(inside)
