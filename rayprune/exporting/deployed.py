"""An exported file as a module, run by its runtime: what its metrics are measured with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.data import map_tensors
from rayprune.exporting.network import CPU, Network, spread_rows
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
        """Load a file that was made of this program, with all threads that there are."""
        number = process.open(runtime, path, os.cpu_count() or 1)
        return cls(process, number, network.signature, program.batch)

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


class OnGpu(nn.Module):
    """A network in half precision on a GPU, called with tensors as they come from the data."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        there = map_tensors(_to_gpu, (args, kwargs))
        nest, outputs = split(self.model(*there[0], **there[1]))
        return nest.fill([tensor.float().cpu() for tensor in outputs])


def _to_gpu(tensor: Tensor) -> Tensor:
    return tensor.cuda().half() if tensor.is_floating_point() else tensor.cuda()


def largest_difference(network: Network, model: nn.Module) -> float:
    """Between the outputs of a network and of another module, over samples of the test split.

    As a fraction of the largest output; infinite where the outputs have other shapes. Raises
    ``ValueError`` for a network whose own outputs differ from run to run.
    """
    expected, again, got = (
        _outputs(network, each) for each in (network.model, network.model, model)
    )
    if _largest(expected, again) > TOLERANCE:
        raise ValueError(
            "the network's outputs differ from run to run in evaluation mode, so that no file can "
            "be compared with it. Make it deterministic there"
        )
    return _largest(expected, got)


def metrics_on_test(network: Network, model: nn.Module) -> dict[str, float]:
    """The metrics of a module on the whole test split, called ``test_…``."""
    batch = network.experiment.batch_size
    found = evaluate(model, network.dataset.test, network.task, batch, Worker())
    return {f"test_{name}": value for name, value in found.items()}


def _outputs(network: Network, model: nn.Module) -> list[Tensor]:
    test = network.dataset.test
    rows = spread_rows(len(test), min(CHECKED_SAMPLES, len(test)))
    inputs, targets = next(iter(test.batches([rows], device=CPU)))
    with torch.no_grad():
        return split(network.task.forward(model, inputs, targets))[1]


def _largest(expected: list[Tensor], got: list[Tensor]) -> float:
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in got]:
        return float("inf")
    return max(map(_difference, expected, got), default=0.0)


def _difference(expected: Tensor, got: Tensor) -> float:
    one, other = expected.double(), got.double()
    same = (one == other) | (one.isnan() & other.isnan())  # infinities, too
    scale = float(one[one.isfinite()].abs().max()) if one.isfinite().any() else 0.0
    differences = (one - other).abs()[~same]
    if not differences.numel():
        return 0.0
    largest = float(differences.max()) / (scale or 1.0)
    return largest if largest == largest else float("inf")
