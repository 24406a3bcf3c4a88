"""Weights, masks and records after a stage: result, checkpoint and start value at once.

Encoded, a snapshot is one safetensors file: of each pruned weight only the survivors, and its mask
as one bit a weight. The same bytes lie on disk and, as a flat NumPy array, in the object store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from rayprune.pruning.masks import Masks, pack_bits, unpack_bits
from rayprune.results.record import StageRecord, record_from_json, record_to_json

WEIGHT, MASK = "weight:", "mask:"  # what a tensor of an encoded snapshot is


class SnapshotError(ValueError):
    """Bytes that are no snapshot, or a broken one."""


@dataclass(frozen=True)
class Snapshot:
    """Where a plan stands: the position is the number of records."""

    weights: Mapping[str, Tensor]
    """The model's state_dict with its plain keys, on the CPU."""
    masks: Masks
    """Parameter name -> bool, True = kept; an entry for every prunable weight, in model order."""
    records: tuple[StageRecord, ...] = ()


def encode(snapshot: Snapshot) -> bytes:
    """One safetensors file with the survivors, the packed masks and the records."""
    tensors: dict[str, Tensor] = {}
    for name, weight in snapshot.weights.items():
        mask = snapshot.masks.get(name)
        whole = mask is None or bool(mask.all())
        tensors[WEIGHT + name] = weight if whole else weight[mask]  # row-major, as the packed bits
    for name, mask in snapshot.masks.items():
        tensors[MASK + name] = torch.from_numpy(pack_bits(mask))
    info = {
        "weights": list(snapshot.weights),  # safetensors sorts by type and name; order breaks ties
        "masks": {name: list(mask.shape) for name, mask in snapshot.masks.items()},
        "records": [record_to_json(record) for record in snapshot.records],
    }
    return encode_tensors(tensors, info)


def decode(content: bytes | np.ndarray) -> Snapshot:
    """The snapshot that `encode` wrote. Raises ``SnapshotError``."""
    tensors, info = decode_tensors(content)
    try:
        masks = {
            name: unpack_bits(tensors[MASK + name].numpy(), tuple(shape))
            for name, shape in info["masks"].items()
        }
        weights = {
            name: _spread(tensors[WEIGHT + name], masks.get(name)) for name in info["weights"]
        }
        return Snapshot(weights, masks, tuple(map(record_from_json, info["records"])))
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"a snapshot lacks {error}") from error


def encode_tensors(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> bytes:
    """Named tensors and JSON beside them, as one safetensors file."""
    return save({k: v.contiguous() for k, v in tensors.items()}, {"info": json.dumps(info)})


def decode_tensors(content: bytes | np.ndarray) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `encode_tensors` wrote. Raises ``SnapshotError``."""
    content = content.tobytes() if isinstance(content, np.ndarray) else content
    try:
        # A safetensors header is eight bytes of length, then JSON; the library reads it from files.
        length = int.from_bytes(content[:8], "little")
        info = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["info"])
        return load(content), info
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise SnapshotError(f"these bytes are no snapshot: {error}") from error


def _spread(values: Tensor, mask: Tensor | None) -> Tensor:
    """The whole weight: survivors in their places, zeros in the others."""
    if mask is None or values.shape == mask.shape:
        return values
    return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter_(mask, values)
