"""Runtimes that run an exported file: opened here, and nowhere else, in a process of their own.

`rayprune.exporting.process` starts it. Neither torch nor a runtime is imported before a file asks
for it, and what the packages would send home is switched off: ONNX Runtime's by its variable, which
that module sets, and OpenVINO's by hiding what would send it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Inputs -> outputs, each in the order in which the file names them."""


def open_file(runtime: str, path: Path, threads: int) -> Run:
    """Load a file into its runtime, on a CPU with so many threads."""
    return OPEN[runtime](path, threads)


def version_of(runtime: str) -> str:
    """What a runtime calls itself: "MNN 3.6.1"."""
    from importlib.metadata import version

    name, package = NAMES[runtime]
    return f"{name} {version(package)}"


def _open_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors alone
    # Threads that went on spinning after a pass would slow whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _open_openvino(path: Path, threads: int) -> Run:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # Without the last one it computes in bfloat16 where a CPU can.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(request.infer(list(inputs)).values())

    return run


def _open_mnn(path: Path, threads: int) -> Run:
    import MNN.expr as F
    import MNN.nn

    settings = {"backend": 0, "precision": "high", "numThread": threads}
    manager = MNN.nn.create_runtime_manager((settings,))
    # No names: all of its inputs and outputs.
    module = MNN.nn.load_module_from_file(str(path), [], [], runtime_manager=manager)
    kinds = {"float32": F.float, "int32": F.int, "uint8": F.uint8}

    def variable(values: np.ndarray) -> F.Var:
        if values.dtype == np.int64:  # which its converter makes int32 of
            values = values.astype(np.int32)
        if values.dtype.name not in kinds:
            raise ValueError(f"it takes inputs of {', '.join(kinds)}, got {values.dtype.name}")
        made = F.placeholder(list(values.shape), F.NCHW, kinds[values.dtype.name])
        made.write(np.ascontiguousarray(values))
        return made

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = module.onForward([variable(values) for values in inputs])
        # A view of what the next pass writes to: copied.
        return [np.array(F.convert(output, F.NCHW).read()) for output in outputs]

    return run


def _open_torch(path: Path, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    module = torch.export.load(path).module()

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

    return run


OPEN: dict[str, Callable[[Path, int], Run]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "mnn": _open_mnn,
    "torch": _open_torch,
}
NAMES = {  # runtime -> what it is called, and its package
    "onnx": ("ONNX Runtime", "onnxruntime"),
    "openvino": ("OpenVINO", "openvino"),
    "mnn": ("MNN", "MNN"),
    "torch": ("torch", "torch"),
}
