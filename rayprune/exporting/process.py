"""The process beside this one in which converters and runtimes work.

They print, start threads, keep settings for a whole process, may abort it, and some send home that
they were used. In a child none of this reaches who calls us.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import rayprune
from rayprune.exporting.messages import read_message, write_message

QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {  # -> modules, and the extra that brings them
    "onnx file": (("onnx", "onnxscript"), "onnx"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "openvino": (("onnx", "onnxscript", "openvino"), "openvino"),
    "mnn": (("onnx", "onnxscript", "MNN"), "mnn"),
    "torch": ((), ""),
    "small": (("torch_pruning",), "small"),
}
LAST_WORDS = 300  # letters of what a process wrote before it died

Arrays = Sequence[np.ndarray]


class ProcessError(ValueError):
    """A converter or a runtime refused."""


class ProcessDiedError(ProcessError):
    """It died: of a file, or as it was killed, as for lack of memory."""


def missing(what: str) -> str:
    """What a runtime, or what writes its files, lacks here; empty if all is there."""
    modules, extra = NEEDS[what]
    absent = [name for name in modules if find_spec(name) is None]
    if not absent:
        return ""
    return f"needs {', '.join(absent)}. Run: pip install 'rayprune[{extra}]'"


def require(what: str) -> None:
    """Raises ``ValueError`` where a package is missing for it."""
    if reason := missing(what):
        raise ValueError(f"{what} {reason}")


class RuntimeProcess:
    """A child process; all that it writes beside what it is told to lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by __exit__)
        root = str(Path(rayprune.__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "rayprune.exporting.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env={**os.environ, **QUIET, "TMPDIR": str(folder), "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the parent's, who ends this one
        )

    def __enter__(self) -> RuntimeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._log.close()

    def open(self, runtime: str, path: Path, threads: int) -> int:
        """Load a file into a runtime; its number is what `run` and `time` take."""
        number = self._ask("open", runtime, str(path), threads)[0]
        return int(number)

    def run(self, number: int, inputs: Arrays) -> list[np.ndarray]:
        """The outputs of one pass."""
        return self._ask("run", number, inputs=inputs)[1]

    def close(self) -> None:
        """Forget all files that were opened."""
        self._ask("close")

    def time(
        self, numbers: Sequence[int], inputs: Arrays, *, least: int = 30, most_s: float = 20.0
    ) -> np.ndarray:
        """Seconds (rounds, files, passes) of files that take turns."""
        return self._ask("time", list(numbers), least, most_s, inputs=inputs)[1][0]

    def version_of(self, runtime: str) -> str:
        """ "MNN 3.6.1"."""
        return str(self._ask("version", runtime)[0])

    def convert_to_mnn(self, onnx: Path, mnn: Path, *, is_sparse: bool) -> None:
        """Convert an ONNX file, with sparse kernels where a layer has zeros enough for them."""
        self._ask("convert_to_mnn", str(onnx), str(mnn), is_sparse)

    def quantize(self, onnx: Path, quantized: Path, batches: Sequence[Arrays]) -> None:
        """An int8 copy of an ONNX file, calibrated on batches of inputs."""
        inputs = [array for batch in batches for array in batch]
        self._ask("quantize", str(onnx), str(quantized), len(batches[0]), inputs=inputs)

    def _ask(self, name: str, *arguments: Any, inputs: Arrays = ()) -> tuple[Any, list[np.ndarray]]:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            write_message(self._child.stdin, [name, arguments], inputs)
            words, arrays = read_message(self._child.stdout)
        except (EOFError, BrokenPipeError):
            raise ProcessDiedError(self._last_words()) from None
        if "failed" in words:
            raise ProcessError(words["failed"])
        return words["answer"], arrays

    def _last_words(self) -> str:
        code = self._child.wait()
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = signal.Signals(-code).name
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip()[-LAST_WORDS:]
        return f"its process died ({how}): {words or 'it said nothing'}"
