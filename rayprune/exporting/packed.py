"""Weights without their zeros, for storing and sending; packed.py beside them makes them whole.

Where the values of a weight stand is written as one bit a weight or as one byte a value, the number
of zeros before it, whichever is shorter. Of a ResNet-18 (11.2 M weights; 44.8 MB dense), bytes:

    sparsity   values      bits        gaps        shorter
    0.80       9,014,548   1,396,504   2,234,407   1,396,504
    0.90       4,545,736   1,396,504   1,117,206     790,916
    0.95       2,311,328   1,396,504     561,182     412,116
    0.98         970,684   1,396,504     249,737     192,150

(allocation global, whose layers differ in sparsity). Entropy allows 399,954 at 0.95 and 197,522 at
0.98 where all layers are alike, so a better code would save little.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprune.exporting.loaders import write_loader
from rayprune.pruning.masks import Masks, pack_bits
from rayprune.snapshot.encoding import encode_tensors

FILE = "packed.safetensors"
NO_VALUE = 255  # as a gap: so many zeros, and no value behind them


def write_packed(weights: Mapping[str, Tensor], masks: Masks, folder: Path) -> None:
    """Write packed.safetensors and its loader, which returns the weights bit for bit.

    Weights that have a mask are packed where that is shorter, all others are whole. What stands in
    the weight decides, not the mask: whatever is not zero is kept, a -0.0 too. Raises a
    ``ValueError`` for a number format that numpy cannot hold.
    """
    tensors: dict[str, Tensor] = {}
    info: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        values = _for_numpy(name, weight.detach().cpu().contiguous())
        kept = _not_zero(values)
        how, places = _places(kept) if name in masks else ("all", None)
        packed = values.reshape(-1)[kept]
        if places is not None and packed.nbytes + places.nbytes < values.nbytes:
            tensors |= {name: packed, f"{name}:places": torch.from_numpy(places)}
        else:
            how, tensors[name] = "all", values
        is_bfloat16 = weight.dtype == torch.bfloat16
        info[name] = {"shape": list(weight.shape), "places": how, "bfloat16": is_bfloat16}
    (folder / FILE).write_bytes(encode_tensors(tensors, info))
    write_loader("packed", folder)


def _for_numpy(name: str, values: Tensor) -> Tensor:
    """As it is; bfloat16, for which numpy has no type, as the integers of the same bits."""
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16)
    try:
        values.numpy()
    except TypeError:
        raise ValueError(
            f"packed must have number formats that numpy has, got {values.dtype} of {name}. "
            "Convert the model first, model.float()"
        ) from None
    return values


def _not_zero(values: Tensor) -> Tensor:
    """bool[numel]: where any bit is set, so also at -0.0."""
    in_bytes = values.reshape(-1, 1).view(torch.uint8)  # numel x bytes of a value
    return (in_bytes != 0).any(1)


def _places(kept: Tensor) -> tuple[str, np.ndarray]:
    """Where the values stand, as uint8, in the shorter of both forms."""
    bits, gaps = pack_bits(kept), _gaps(kept)
    return ("bits", bits) if len(bits) <= len(gaps) else ("gaps", gaps)


def _gaps(kept: Tensor) -> np.ndarray:
    """The number of zeros before each value; from 255 on as several bytes."""
    zeros = np.diff(np.flatnonzero(kept.numpy()), prepend=-1) - 1
    longer, rest = np.divmod(zeros, NO_VALUE)
    gaps = np.full(len(zeros) + longer.sum(), NO_VALUE, np.uint8)
    gaps[np.cumsum(longer + 1) - 1] = rest
    return gaps
