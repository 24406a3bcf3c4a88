"""What trained weights were trained with: an input that is scaled otherwise makes them guess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune import config
from rayprune.config.brought import find_weights, our_folder
from rayprune.config.entries import FIELD, TIMM, entry_of_file, find_entry, timm_description
from rayprune.config.preprocessing import Interpolation, Preprocessing
from rayprune.models.names import OURS
from rayprune.models.ours import read_provenance


def trained_preprocessing(model: config.Model) -> Preprocessing | None:
    """What the weights of a network were trained with; None without weights, or if nothing says it.

    Entries of torchvision's and timm's say it, and files of theirs, and folders that rayprune
    wrote. Raises ``ValueError`` for weights that are not here.
    """
    if model.weights is None:
        return None
    path = find_weights(model.name, model.target, model.weights)
    ours = our_folder(path)
    if ours is not None:
        return _of_provenance(read_provenance(ours), ours)
    if model.name is not None and model.name.startswith(TIMM):
        known = timm_description(model.name)
        return None if known is None else _of_timm(known)
    if model.name in OURS:
        return None
    entry = find_entry(model.name, model.target, model.weights) or entry_of_file(
        model.name, model.target, path
    )
    return None if entry is None else _of_torchvision(entry.known.transforms())


def _of_torchvision(preset: Any) -> Preprocessing | None:
    if not (hasattr(preset, "mean") and hasattr(preset, "std")):
        return None  # detection's only make tensors
    size, resize = _side(preset, "crop_size"), _side(preset, "resize_size")
    return Preprocessing(
        tuple(map(float, preset.mean)),
        tuple(map(float, preset.std)),
        size or resize,  # segmentation's do not crop
        size / resize if size and resize else None,
        _interpolation(getattr(preset.interpolation, "value", "")),
    )


def _side(preset: Any, name: str) -> int | None:
    sides = getattr(preset, name, None)
    return int(sides[0]) if sides else None


def _of_timm(known: Any) -> Preprocessing:
    return Preprocessing(
        tuple(map(float, known.mean)),
        tuple(map(float, known.std)),
        int(known.input_size[-1]),
        float(known.crop_pct) if known.crop_pct else None,
        _interpolation(known.interpolation),
    )


def _of_provenance(provenance: Mapping[str, Any], folder: Path) -> Preprocessing | None:
    said = provenance.get("preprocessing")
    if said is None or said.get("mean") is None:
        return None
    try:
        return Preprocessing(
            tuple(map(float, said["mean"])),
            tuple(map(float, said["std"])),
            None if said["resize"] is None else int(said["resize"]),
            None if said["eval_crop"] is None else float(said["eval_crop"]),
            _interpolation(said["interpolation"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{FIELD}: the provenance.json in {folder} has a broken preprocessing, got {said}. Run "
            f"its study again"
        ) from None


def _interpolation(name: str | None) -> Interpolation:
    """Of the two that images are resized with here, the nearer one."""
    return "bicubic" if name in ("bicubic", "lanczos") else "bilinear"
