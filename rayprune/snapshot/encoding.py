"""A snapshot as bytes, and back.

Encoded, a snapshot is one safetensors file: of each pruned weight only the survivors, and its mask
as one bit a weight. The same bytes lie on disk and, as a flat NumPy array, in the object store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from rayprune.pruning.masks import pack_bits, unpack_bits
from rayprune.results.record import record_from_json, record_to_json
from rayprune.snapshot.snapshot import Snapshot

WEIGHT, MASK, TRAINING = "weight:", "mask:", "training:"  # what an encoded tensor is


class SnapshotError(ValueError):
    """Bytes that are no snapshot, or a broken one."""


def encode(snapshot: Snapshot) -> bytes:
    """One safetensors file with the survivors, the packed masks and the records."""
    tensors: dict[str, Tensor] = {}
    for name, weight in snapshot.weights.items():
        mask = snapshot.masks.get(name)
        whole = mask is None or bool(mask.all())
        tensors[WEIGHT + name] = weight if whole else weight[mask]  # row-major, as the packed bits
    for name, mask in snapshot.masks.items():
        tensors[MASK + name] = torch.from_numpy(pack_bits(mask))
    tensors |= {TRAINING + name: tensor for name, tensor in snapshot.training_state.items()}
    info = {
        "weights": list(snapshot.weights),  # safetensors sorts by type and name; order breaks ties
        "masks": {name: list(mask.shape) for name, mask in snapshot.masks.items()},
        "training_state": list(snapshot.training_state),
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
        training = {name: tensors[TRAINING + name] for name in info["training_state"]}
        records = tuple(map(record_from_json, info["records"]))
        return Snapshot(weights, masks, records, training)
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"a snapshot lacks {error}") from error


def encode_tensors(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> bytes:
    """Named tensors and JSON beside them, as one safetensors file."""
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory, as those of layers that share a weight.
        whole[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return save({k: v.contiguous() for k, v in whole.items()}, {"info": json.dumps(info)})


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
