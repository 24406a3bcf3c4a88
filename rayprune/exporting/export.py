"""A trained network in the formats that are asked for: written, run, compared, measured, described.

All is made in a folder of its own, and moved to its place once every file has been run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from rayprune.config import Experiment
from rayprune.exporting.card import Card, make_card
from rayprune.exporting.deployed import TOLERANCE, largest_difference, metrics_on_test
from rayprune.exporting.exported import Exported, ExportedFile, Latency
from rayprune.exporting.formats import FORMATS, Made
from rayprune.exporting.measure import Bench, Dense, File, machine
from rayprune.exporting.model_files import versions, write_model
from rayprune.exporting.network import Network, trained_network
from rayprune.exporting.place import check_place, publish, workshop
from rayprune.exporting.process import ProcessError, RuntimeProcess
from rayprune.exporting.sizes import zlib_size
from rayprune.exporting.workplace import Workplace
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
    """Write a trained network in these formats into a folder, with a card.

    Each file is run on real test samples: outputs must be torch's, and the metrics of the whole
    test split are measured with it. `latencies_of` are the threads and the samples of a pass for
    which latencies are measured, beside those of one sample. What an earlier export left in the
    folder goes.

    Raises ``ValueError`` where the network cannot be exported to a format, a file's outputs are
    others, or the folder holds files that no export wrote; ``StorageError``. Then the folder is as
    it was.
    """
    check_place(folder)
    network = trained_network(snapshot, experiment)
    with workshop(folder) as work, RuntimeProcess(work) as process:
        place = Workplace(network, work, process)
        made = {}
        for name in formats:
            say(f"writing {name}")
            if name == "safetensors":
                write_model(snapshot, experiment, str(work), about)
            made[name] = _made(name, place)
        files = []
        for name, each in made.items():
            say(f"running {each.files[0]} on the test split")
            files.append(_checked(name, each, place))
        latencies: tuple[Latency, ...] = ()
        if latencies_of:
            say("measuring latencies")
            latencies = _latencies(place, list(made.values()), *latencies_of)
        exported = Exported(
            folder=folder, files=tuple(files), latencies=latencies, reported=_reported(network)
        )
        names = [name for each in made.values() for name in each.files]
        publish(work, folder, names, _card(exported, network, about))
    return exported


def _made(name: str, place: Workplace) -> Made:
    try:
        return FORMATS[name](place)
    except ProcessError as error:
        raise ValueError(f"{name}: {error}") from error


def _checked(name: str, made: Made, place: Workplace) -> ExportedFile:
    """Compare a file with the network on test samples. Raises ``ValueError`` if it is another."""
    network = place.network
    try:
        module = made.module()
        difference = largest_difference(network, module)
        metrics = metrics_on_test(network, module)
    except ProcessError as error:
        raise ValueError(f"{made.files[0]} does not run: {error}") from error
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
        num_bytes=sum(path.stat().st_size for path in paths),
        zlib_bytes=sum(map(zlib_size, paths)),
        runtime=place.process.version_of(made.runtime),
        difference=difference,
        tolerance=TOLERANCE if made.is_exact else None,
        metrics=metrics,
        load=made.load,
        note=made.note,
    )


def _latencies(
    place: Workplace, made: Sequence[Made], threads: int, batch: int
) -> tuple[Latency, ...]:
    """Of each file in each runtime that runs it, for one sample and for a batch of them."""
    files: list[File] = [(r, place.folder / each.files[0]) for each in made for r in each.timed_in]
    found: list[Latency] = []
    dense: Dense = {}
    for samples in sorted({1, batch}):
        bench = Bench(place.folder, place.process, threads, samples, dense)
        times = bench.time(place.network, files)
        found += (
            Latency(
                file=path.name,
                runtime=place.process.version_of(runtime),
                threads=threads,
                batch=samples,
                machine=machine(),
                **asdict(time),
            )
            for (runtime, path), time in zip(files, times, strict=True)
            if time is not None  # one that takes another number of samples
        )
    return tuple(found)


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
