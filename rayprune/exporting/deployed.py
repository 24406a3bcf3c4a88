"""An exported file as a module, run by its runtime: what its metrics are measured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.exporting.network import Network
from rayprune.exporting.process import RuntimeProcess
from rayprune.exporting.program import Program
from rayprune.exporting.signature import Signature, split
from rayprune.training.evaluate import evaluate
from rayprune.training.worker import Worker

CHECKED_SAMPLES = 64
TOLERANCE = 1e-4  # of the largest output: runtimes add up in another order


class Deployed(nn.Module):
    """Called as the network itself is; computes in a child process."""

    def __init__(
        self, process: RuntimeProcess, number: int, signature: Signature, batch: int | None
    ) -> None:
        super().__init__()
        self._process, self._number = process, number
        self._signature, self._batch = signature, batch

    @classmethod
    def open(
        cls, process: RuntimeProcess, runtime: str, path: Path, network: Network, program: Program
    ) -> Deployed:
        """Load a file that was made of this program, on one thread."""
        return cls(process, process.open(runtime, path, 1), network.signature, program.batch)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = [tensor.detach().numpy() for tensor in split((args, kwargs))[1]]
        outputs = self._run(inputs) if self._batch is None else self._in_parts(inputs, self._batch)
        return self._signature.outputs.fill([torch.from_numpy(array) for array in outputs])

    def _run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return self._process.run(self._number, inputs)

    def _in_parts(self, inputs: list[np.ndarray], batch: int) -> list[np.ndarray]:
        """So many samples at a time, the last part filled up with its last sample."""
        flags = self._signature.are_batches
        count = next(len(a) for a, is_batch in zip(inputs, flags, strict=True) if is_batch)
        parts = []
        for start in range(0, count, batch):
            rows = np.minimum(np.arange(start, start + batch), count - 1)
            parts.append(
                self._run([a[rows] if f else a for a, f in zip(inputs, flags, strict=True)])
            )
        return [np.concatenate(column)[:count] for column in zip(*parts, strict=True)]


def largest_difference(network: Network, model: nn.Module) -> float:
    """Between the outputs of a network and of another module, over the first test samples.

    As a fraction of the largest output; infinite where the outputs have other shapes or are NaN.
    """
    count = min(CHECKED_SAMPLES, len(network.dataset.test))
    args, kwargs = network.signature.inputs.fill(network.inputs(count))
    with torch.no_grad():
        expected, got = (split(m(*args, **kwargs))[1] for m in (network.model, model))
    return max(map(_difference, expected, got))


def metrics_on_test(network: Network, model: nn.Module) -> dict[str, float]:
    """The metrics of a module on the whole test split, called ``test_…``."""
    batch = network.experiment.batch_size
    found = evaluate(model, network.dataset.test, network.task, batch, Worker())
    return {f"test_{name}": value for name, value in found.items()}


def _difference(expected: Tensor, got: Tensor) -> float:
    if expected.shape != got.shape:
        return float("inf")
    scale = float(expected.abs().max()) or 1.0
    difference = float((expected.double() - got.double()).abs().max())
    return difference / scale if difference == difference else float("inf")
