"""Reads packed.safetensors, which lies beside this file. Needs numpy and safetensors alone.

from packed import load
weights = load("packed.safetensors")  # name -> array, with the zeros in place
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The network's state_dict, in its order. bfloat16, which numpy lacks, comes as float32."""
    with safe_open(path, "numpy") as file:
        told = json.loads(file.metadata()["info"])
        return {name: _array(file, name, **about) for name, about in told.items()}


def _array(file: Any, name: str, shape: list[int], places: str, bfloat16: bool) -> np.ndarray:
    values = file.get_tensor(name)
    if bfloat16:  # the upper half of a float32
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if places == "all":
        return values
    packed = file.get_tensor(f"{name}:places")
    if places == "bits":  # one for each weight, 1 where there is a value
        kept = np.flatnonzero(np.unpackbits(packed, count=math.prod(shape)))
    else:  # how many zeros are before each value; 255 means 255 zeros, and no value behind them
        kept = (np.cumsum(packed + (packed < 255), dtype=np.int64) - 1)[packed < 255]
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[kept] = values
    return dense.reshape(shape)
