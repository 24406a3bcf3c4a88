"""Networks that rayprune wrote, best/ or dense/: their masks and what they were trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from rayprune.config.brought import MASKS, PROVENANCE, our_folder
from rayprune.config.entries import FIELD
from rayprune.pruning.masks import Masks, unpack_bits


def read_masks(path: str | Path) -> Masks | None:
    """The masks of a pruned network that rayprune wrote; None where none lie there.

    `path` is its folder or the model.safetensors in it. Parameter name -> bool tensor of the
    weight's shape, True = kept. Raises ``ValueError`` for a damaged file.
    """
    folder = our_folder(Path(path).expanduser())
    if folder is None or not (folder / MASKS).is_file():
        return None
    try:
        with safe_open(folder / MASKS, "np") as file:
            shapes = {name: tuple(json.loads(text)) for name, text in file.metadata().items()}
            return {name: unpack_bits(file.get_tensor(name), s) for name, s in shapes.items()}
    except Exception as error:  # readers raise anything over a damaged file
        raise ValueError(f"{FIELD}: {folder / MASKS} is damaged: {error}") from None


def brought_masks(weights: str | None, model: nn.Module) -> Masks:
    """Of the masks beside ``experiment.model.weights``, those of the network's weights.

    A head that starts fresh is of another shape and has none. Raises ``ValueError`` for masks of
    another network.
    """
    masks = {} if weights is None else read_masks(weights) or {}
    parameters = dict(model.named_parameters())
    unknown = sorted(masks.keys() - parameters.keys())
    if unknown:
        raise ValueError(
            f"{FIELD}: the {MASKS} in {weights} is of another network, it names "
            f"{', '.join(unknown)}. Take the folder as a study wrote it"
        )
    return {name: mask for name, mask in masks.items() if mask.shape == parameters[name].shape}


def read_provenance(folder: Path) -> Mapping[str, Any]:
    """What provenance.json says. Raises ``ValueError`` if it is damaged."""
    try:
        said = json.loads((folder / PROVENANCE).read_bytes())
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ValueError(f"{FIELD}: {folder / PROVENANCE} is damaged. Run its study again")
    return said
