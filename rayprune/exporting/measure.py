"""How long a file takes, beside the same network dense in the fastest runtime that is installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from rayprune.exporting.deployed import TOLERANCE, Deployed, largest_difference
from rayprune.exporting.network import Network, fresh_network
from rayprune.exporting.process import ProcessDiedError, ProcessError, RuntimeProcess, missing
from rayprune.exporting.program import make_program, write_onnx, write_program
from rayprune.exporting.sizes import zlib_size
from rayprune.exporting.workplace import Workplace
from rayprune.results.labels import counted
from rayprune.results.measurement import Measurement

MEGA = 1e6
FIRST_ROUNDS = 10  # in which the fastest dense runtime is found

File = tuple[str, Path]
"""Which runtime runs it, and where it lies."""
Dense = dict[str, File]
"""Kind of network -> its file in the runtime that is fastest for it, dense."""


@dataclass(frozen=True, kw_only=True)
class Time:
    """Milliseconds of a pass over one batch: medians, and the ratio of those that belong together.

    The files take turns, so what else the machine does meets all of them alike.
    """

    median_ms: float
    spread_ms: float
    """The interquartile range."""
    dense_ms: float
    """Of the same network, dense, in the runtime that was fastest for it."""
    dense_runtime: str
    speedup: float
    """The median over rounds of dense / this."""
    load_average: float


@dataclass(frozen=True, eq=False)
class Bench:
    """Times files, and keeps the dense files of the networks that it has seen."""

    folder: Path
    process: RuntimeProcess
    threads: int
    batch: int
    """Samples of a pass."""
    dense: Dense = field(default_factory=dict)
    """Of the networks that it has seen; another bench may have made them."""

    def measure(self, network: Network, runtime: str) -> Measurement:
        """A trained network as the file that a runtime runs.

        Raises ``ValueError`` where it cannot be exported or a package is missing.
        """
        place = Workplace(network, self.folder, self.process, self.batch)
        path = place.file_for(runtime)
        module = Deployed.open(self.process, runtime, path, network, place.program)
        difference = largest_difference(network, module)
        self.process.close()
        if difference > TOLERANCE:
            raise ValueError(
                f"{path.name} is another network than torch's: its outputs differ by "
                f"{difference:.1e} of the largest one"
            )
        time = self.time(network, [(runtime, path)])[0]
        if time is None:
            raise ValueError(f"{path.name} does not run in {runtime} with batch {self.batch}")
        return Measurement(
            file_mb=path.stat().st_size / MEGA,
            zlib_mb=zlib_size(path) / MEGA,
            latency_ms=time.median_ms,
            latency_spread_ms=time.spread_ms,
            dense_latency_ms=time.dense_ms,
            dense_runtime=time.dense_runtime,
            measured_speedup=time.speedup,
            load_average=time.load_average,
            measured_with=f"{self.process.version_of(runtime)}, {self.conditions}",
            machine=machine(),
        )

    @property
    def conditions(self) -> str:
        """ "1 thread, batch 1"."""
        return f"{counted(self.threads, 'thread')}, batch {self.batch}"

    def time(self, network: Network, files: Sequence[File]) -> list[Time | None]:
        """The latency of each file, which are all of this network; None of one that does not run.

        Raises ``ValueError`` where no runtime runs the dense network.
        """
        inputs = [tensor.numpy() for tensor in network.inputs(self.batch)]
        dense = self._fastest_dense(network, inputs)
        opened = [self._open(file, inputs) for file in (dense, *files)]
        numbers = [number for number in opened if number is not None]
        assert opened[0] is not None, "it ran before"
        load = os.getloadavg()[0]
        seconds = self.process.time(numbers, inputs)
        load = max(load, os.getloadavg()[0])
        self.process.close()
        dense_by_round = np.median(seconds[:, 0], axis=1)
        times = iter(
            Time(
                median_ms=1e3 * float(np.median(own)),
                spread_ms=1e3 * float(np.subtract(*np.percentile(own, [75, 25]))),
                dense_ms=1e3 * float(np.median(seconds[:, 0])),
                dense_runtime=self.process.version_of(dense[0]),
                speedup=float(np.median(dense_by_round / np.median(own, axis=1))),
                load_average=load,
            )
            for own in (seconds[:, number] for number in range(1, len(numbers)))
        )
        return [None if number is None else next(times) for number in opened[1:]]

    def _open(self, file: File, inputs: Sequence[np.ndarray]) -> int | None:
        """A file that has run once; None of one that does not."""
        try:
            number = self.process.open(*file, self.threads)
            self.process.run(number, inputs)
        except ProcessDiedError:
            raise
        except ProcessError:
            return None
        return number

    def _fastest_dense(self, network: Network, inputs: Sequence[np.ndarray]) -> File:
        """The network as its code makes it, in the runtime of those here that is fastest for it.

        Found once for all networks that differ in their weights alone.
        """
        experiment = network.experiment
        shapes = [(array.shape, array.dtype) for array in inputs]
        kind = repr((experiment.model, experiment.task, len(network.dataset.classes), shapes))
        if kind not in self.dense:
            name = f"dense-{len(self.dense)}"
            written = self._write_dense(network, fresh_network(network), name)
            opened = {file: self._open(file, inputs) for file in written}
            files = [file for file, number in opened.items() if number is not None]
            if not files:
                raise ValueError("no runtime that is installed here runs the dense network")
            numbers = [number for number in opened.values() if number is not None]
            seconds = self.process.time(numbers, inputs, least=FIRST_ROUNDS)
            self.process.close()  # with whatever threads the others keep
            self.dense[kind] = files[int(np.median(seconds, axis=(0, 2)).argmin())]
        return self.dense[kind]

    def _write_dense(self, network: Network, model: nn.Module, name: str) -> list[File]:
        """For every runtime that is here and can have it."""
        program = make_program(network, model, self.batch)
        onnx, mnn, pt2 = (self.folder / f"{name}.{end}" for end in ("onnx", "mnn", "pt2"))
        write_program(program, pt2)
        files = [("torch", pt2)]
        if missing("onnx file"):
            return files
        with suppress(ValueError):  # an operation that ONNX has not
            write_onnx(program, onnx)
            files += [(runtime, onnx) for runtime in ("onnx", "openvino") if not missing(runtime)]
            if not missing("mnn"):
                self.process.convert_to_mnn(onnx, mnn, is_sparse=False)
                files.append(("mnn", mnn))
        return files


def machine() -> str:
    """The CPU's model, as far as the system says it, and its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or platform.processor() or platform.machine()
    return f"{name}, {counted(os.cpu_count() or 1, 'core')}"
