"""The process in which converters and runtimes work: it does what its parent writes to it.

Started by `rayprune.exporting.process`. Requests come through standard input, answers go through
what standard output was: libraries print there, too, so that is standard error here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayprune.exporting.messages import read_message, write_message
from rayprune.exporting.runtimes import Run, open_file, version_of

Arrays = Sequence[np.ndarray]

_opened: list[Run] = []


def open_(runtime: str, path: str, threads: int, *, inputs: Arrays) -> int:
    """Load a file; its number is what the others take."""
    _opened.append(open_file(runtime, Path(path), threads))
    return len(_opened) - 1


def run(number: int, *, inputs: Arrays) -> Arrays:
    """The outputs of one pass."""
    return _opened[number](inputs)


def close(*, inputs: Arrays) -> None:
    """Forget all files that were opened."""
    _opened.clear()


def time_(numbers: Sequence[int], least: int, most_s: float, *, inputs: Arrays) -> Arrays:
    """Seconds (rounds, files, passes): pass after pass of one file after the other.

    There are `least` rounds, or fewer in `most_s` seconds, but five. A file's first pass of a round
    only brings its weights and threads back, and is not counted.
    """
    seconds: list[list[list[float]]] = []
    started = time.perf_counter()
    while len(seconds) < least and (len(seconds) < 5 or time.perf_counter() - started < most_s):
        seconds.append([_passes(_opened[number], inputs) for number in numbers])
    return [np.array(seconds)]


def _passes(run: Run, inputs: Arrays, count: int = 2) -> list[float]:
    run(inputs)
    seconds = []
    for _ in range(count):
        before = time.perf_counter()
        run(inputs)
        seconds.append(time.perf_counter() - before)
    return seconds


def version(runtime: str, *, inputs: Arrays) -> str:
    """What it calls itself."""
    return version_of(runtime)


def convert_to_mnn(onnx: str, mnn: str, is_sparse: bool, *, inputs: Arrays) -> None:
    """Convert an ONNX file. The package's command does this as well, and sends home that it did."""
    import _tools

    Path(mnn).unlink(missing_ok=True)  # a failure would leave an older one
    files = ["--modelFile", onnx, "--MNNModel", mnn]
    sparse = ["--detectSparseSpeedUp"] if is_sparse else []
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "rayprune", *sparse])
    if not Path(mnn).exists():
        raise ValueError("the converter wrote no file")


def quantize(onnx: str, quantized: str, num_inputs: int, *, inputs: Arrays) -> None:
    """Post-training quantisation to int8, calibrated on batches, each of `num_inputs` arrays.

    Weights of each output channel and activations of each tensor, as pairs of quantise and
    dequantise operations: ONNX Runtime and OpenVINO run them as integers.
    """
    import logging

    import onnx as onnx_package
    from onnxruntime import quantization as q

    names = [entry.name for entry in onnx_package.load(onnx).graph.input]

    class Batches(q.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(zip(*[iter(inputs)] * num_inputs, strict=True))

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            batch = next(self._left, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    logging.disable(logging.WARNING)
    q.quantize_static(
        onnx,
        quantized,
        Batches(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )


OPERATIONS: dict[str, Callable[..., Any]] = {
    "open": open_,
    "run": run,
    "close": close,
    "time": time_,
    "version": version,
    "convert_to_mnn": convert_to_mnn,
    "quantize": quantize,
}


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            (name, arguments), inputs = read_message(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = OPERATIONS[name](*arguments, inputs=inputs)
        except Exception as error:  # of a runtime, in its own words and types
            write_message(answers, {"failed": f"{type(error).__name__}: {error}"})
        else:
            has_arrays = isinstance(answer, Sequence) and not isinstance(answer, str)
            arrays = answer if has_arrays else ()
            write_message(answers, {"answer": None if has_arrays else answer}, arrays)


if __name__ == "__main__":
    main()
