"""The state_dict in a file of weights: found, and read without running any code of the file."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from rayprune.config.entries import FIELD

DEPTH = 2  # levels below the file's own at which a state_dict is looked for
# What a training run keeps beside the weights, tensors though it may hold.
NO_WEIGHTS = ("optim", "sched", "lr_sched", "scaler", "rng", "random", "amp", "grad")
# Plain values that training scripts keep beside the weights; to read them runs no code of the file.
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.float64(0).__reduce__()[0],  # how a number of NumPy's is made anew
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")),
]
EXTRA = "_extra_state"  # a module's own, of any type


def read_state_dict(file: Path, key: str | None = None) -> dict[str, Any]:
    """Name -> tensor of a .safetensors, .pt or .pth file; numbers and the like may be among them.

    `key` is ``experiment.model.weights_key``. Raises a ``ValueError`` of one line for a file that
    cannot be read, or that holds no state_dict or several.
    """
    content = _read(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{FIELD}: {file} must hold a state_dict, got {_kind(content)}")
    found = dict(_state_dicts(content))
    if key is not None:
        return dict(_chosen(file, found, key))
    likely = {name: inner for name, inner in found.items() if _holds_weights(name, inner)} or found
    if _is_plain(content) or (not likely and _is_state_dict(content)):
        return dict(content)
    if not likely:
        raise ValueError(
            f"{FIELD}: {file} must hold a state_dict, names with tensors, got {_listed(content)}"
        )
    if len(likely) > 1:
        raise ValueError(
            f"{FIELD}: {file} holds several state_dicts: {', '.join(likely)}. Write "
            f"experiment.model.weights_key: {next(iter(likely))}, or another of them"
        )
    return dict(next(iter(likely.values())))


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{FIELD}: {file} is no file")
    if file.stat().st_size == 0:
        raise ValueError(f"{FIELD}: {file} is empty. Write the path of a file with weights")
    is_safe, is_archive = file.suffix == ".safetensors", zipfile.is_zipfile(file)
    try:
        if is_safe:
            return load_file(file)
        with warnings.catch_warnings(), safe_globals(PLAIN):
            warnings.simplefilter("ignore")  # about old kinds of files and of tensors
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive or None)
    except Exception as error:  # readers raise anything over a damaged file, a KeyError even
        raise ValueError(f"{FIELD}: {file} {_reason(file, str(error), is_safe)}") from None


def _reason(file: Path, text: str, is_safe: bool) -> str:
    """Why a reader failed, in a line; torch's own texts say how to run the file's code."""
    if "TorchScript" in text:
        return "is a TorchScript archive. Save model.state_dict() of the network instead"
    found = re.search(r"GLOBAL (\S+)", text)
    if found:
        return (
            f"holds more than tensors ({found[1]}), and nothing but tensors is unpickled. "
            f"Save model.state_dict()"
        )
    with file.open("rb") as opened:
        begins = opened.read(64)
    if b"git-lfs" in begins:
        return "is a pointer of git-lfs. Run: git lfs pull"
    looks_whole = begins[:2] in (b"PK", b"\x80\x02") or (is_safe and begins[8:9] == b"{")
    if looks_whole:
        return f"is damaged, or was not copied to its end ({file.stat().st_size} bytes)"
    kind = "a safetensors file" if is_safe else "a file of weights that torch.save wrote"
    return f"is not {kind}. Write the path of a .safetensors, .pt or .pth file"


def _state_dicts(content: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Name -> state_dict, of those below the file's own level; names of inner ones have a dot."""
    for name, inner in content.items():
        if not isinstance(name, str) or not isinstance(inner, Mapping) or name.endswith(EXTRA):
            continue
        if _is_state_dict(inner):
            yield f"{path}{name}", inner
        elif path.count(".") + 1 < DEPTH:
            yield from _state_dicts(inner, f"{path}{name}.")


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    """Whether most values are tensors: some modules keep a number or a text among them."""
    if not all(isinstance(name, str) for name in content):
        return False
    values = [value for name, value in content.items() if not name.endswith(EXTRA)]
    return sum(isinstance(value, Tensor) for value in values) > len(values) / 2


def _is_plain(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(value, Tensor) or str(name).endswith(EXTRA) for name, value in content.items()
    )


def _holds_weights(name: str, content: Mapping[str, Any]) -> bool:
    if any(part.lower().startswith(NO_WEIGHTS) for part in name.split(".")):
        return False
    tensors = [value for value in content.values() if isinstance(value, Tensor)]
    return any(tensor.is_floating_point() or tensor.is_quantized for tensor in tensors)


def _chosen(file: Path, found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if key not in found:
        there = f"holds {', '.join(found)}" if found else "holds one state_dict, without a name"
        remedy = f"Write {next(iter(found))}" if found else "Leave weights_key out"
        raise ValueError(
            f"{FIELD}: {file} {there}, got experiment.model.weights_key: {key}. {remedy}"
        )
    return found[key]


def _listed(content: Mapping[Any, Any]) -> str:
    if not content:
        return "nothing in it"
    said = [f"{name} ({_kind(value)})" for name, value in list(content.items())[:6]]
    return ", ".join(said) + (" …" if len(content) > 6 else "")


def _kind(value: Any) -> str:
    return type(value).__name__
