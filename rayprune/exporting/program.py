"""A network as a program of torch's operations, from which the other files are made."""

from __future__ import annotations

import io
import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import rayprune
from rayprune.exporting.network import Network
from rayprune.exporting.signature import Flat

TRACED_SAMPLES = 3  # with one or two, torch may take the number for fixed
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"  # a variable that torch sets for its own children
INSTEAD = "Write --to safetensors or packed: these hold the weights alone"


@dataclass(frozen=True, eq=False)
class Program:
    """What `torch.export` made of a network: it takes and returns tensors in a row."""

    exported: torch.export.ExportedProgram
    names: tuple[str, ...]
    """Of its inputs."""
    batch: int | None
    """Samples that it takes at a time; None for any number."""


def make_program(network: Network, model: nn.Module | None = None, batch: int = 1) -> Program:
    """The program of a network, or of another `model` that is called as it is.

    Takes any number of samples, or `batch` where torch cannot follow a network for any number.
    Raises ``ValueError`` with the operation that cannot be followed.
    """
    signature = network.signature
    flat = Flat(network.model if model is None else model, signature).eval()
    samples = torch.export.Dim("batch")
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC if axis else samples for axis in axes} or None
        for axes in signature.varying
    )
    try:
        exported = _export(flat, network.inputs(TRACED_SAMPLES), (dynamic,))
        return Program(exported, signature.names, None)
    except Exception:  # of torch or of the network: in words for who wrote either
        try:
            return Program(_export(flat, network.inputs(batch), None), signature.names, batch)
        except Exception as error:
            raise ValueError(_cannot("torch.export", error)) from error


def write_program(program: Program, path: Path) -> None:
    """Write a .pt2 file, which `torch.export.load` reads."""
    content = io.BytesIO()  # torch's own writer aborts the process where a disk is full
    torch.export.save(program.exported, content)
    path.write_bytes(content.getbuffer())


def write_onnx(program: Program, path: Path) -> None:
    """Write an ONNX file. Raises ``ValueError`` with the operation that ONNX has not."""
    outputs = len(program.exported.graph_signature.user_outputs)
    names = ["output"] if outputs == 1 else [f"output_{number}" for number in range(outputs)]
    try:
        with _quiet():
            made = torch.onnx.export(
                program.exported,
                input_names=list(program.names),
                output_names=names,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ValueError(f"the packages of the extra onnx do not work here: {error}") from error
    except Exception as error:  # the exporter's, of many types
        raise ValueError(_cannot("torch.onnx", error)) from error
    assert made is not None
    made.save(path)


def _export(
    flat: Flat, inputs: list[torch.Tensor], dynamic: tuple[object, ...] | None
) -> torch.export.ExportedProgram:
    with _quiet(), torch.no_grad():
        return torch.export.export(flat, tuple(inputs), dynamic_shapes=dynamic)


def _cannot(tool: str, error: Exception) -> str:
    """Which operation it was, if the error names one; else its first line."""
    whole = "\n".join(str(cause) for cause in _causes(error))
    found = re.search(r"OpOverload\(op='([^']+)'|(?:operator|op) ([a-z_]+[.:]+[\w.:]+)", whole)
    first = next((line.strip() for line in str(error).split("\n") if line.strip()), repr(error))
    what = f"the operation {found[1] or found[2]}" if found else f"{type(error).__name__}: {first}"
    return f"the network cannot be exported: {tool} does not take {what}{_place(error)}. {INSTEAD}"


def _place(error: Exception) -> str:
    """Where in the network's own code it was, if there."""
    libraries = tuple(str(Path(module.__file__ or "").parent) for module in (torch, rayprune))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(libraries)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})" if own else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what is theirs, log, print, and set a variable of the process."""
    level, before = logging.root.manager.disable, os.environ.get(INDUCTOR)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if before is None:
            os.environ.pop(INDUCTOR, None)
