"""A snapshot as files that load with nothing of ours installed."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import save

from rayprune.config import Experiment
from rayprune.pruning.allocation import layer_report
from rayprune.pruning.masks import num_pruned, pack_bits
from rayprune.results.files import masks_file, model_file, provenance_file
from rayprune.results.record import record_to_json
from rayprune.results.storage import delete, write_bytes
from rayprune.snapshot import Snapshot


def write_model(
    snapshot: Snapshot, experiment: Experiment, folder: str, about: Mapping[str, Any]
) -> None:
    """Write model.safetensors (the model's plain keys, zeros in place), masks.safetensors (one bit
    a weight, packed row by row, shapes in the metadata; none of a dense network) and
    provenance.json.

    Raises ``StorageError``.
    """
    delete(provenance_file(folder))  # until all is written, the folder is nobody's
    weights = {name: tensor.contiguous() for name, tensor in snapshot.weights.items()}
    write_bytes(model_file(folder), save(weights))
    if num_pruned(snapshot.masks):
        bits = {name: torch.from_numpy(pack_bits(mask)) for name, mask in snapshot.masks.items()}
        shapes = {name: json.dumps(list(mask.shape)) for name, mask in snapshot.masks.items()}
        write_bytes(masks_file(folder), save(bits, shapes))
    else:
        delete(masks_file(folder))
    provenance = {
        **about,
        "experiment": experiment.model_dump(mode="json"),
        "preprocessing": snapshot.records[-1].preprocessing,
        "layers": [asdict(row) for row in layer_report(snapshot.masks)],
        "records": [record_to_json(record) for record in snapshot.records],
        "versions": versions(),
    }
    write_bytes(provenance_file(folder), json.dumps(provenance, indent=2).encode())


def versions() -> dict[str, str]:
    """Of Python, of rayprune and of what it computes with."""
    packages = {name: version(name) for name in ("rayprune", "torch", "torchvision", "ray")}
    return {"python": platform.python_version(), **packages}
