"""Start weights: from a file, or from a network that was trained for other classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rayprune.pruning.layers import CONVOLUTIONS


def load_weights_(model: nn.Module, file: str) -> None:
    """Load the weights of a .safetensors, .pt or .pth file into a network, in place.

    No pickled code is run. Raises a ``ValueError`` for a file that cannot be read or is of another
    network.
    """
    try:
        if file.endswith(".safetensors"):
            tensors: dict[str, Tensor] = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise anything over a damaged file, a KeyError even
        raise ValueError(f"experiment.model.weights: cannot read {file}: {error}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(
            f"experiment.model.weights: {file} must hold a state_dict, names to tensors"
        )
    take_fitting_(model, tensors, file)


def take_fitting_(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all; only the last layer may have another number of classes, and then stays fresh.

    `source` is what messages call it. Warns of a fresh layer; raises a ``ValueError`` for tensors
    of another network.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"experiment.model.weights: {source} is of another network: "
            f"missing {missing[:3] or 'nothing'}, unknown {unknown[:3] or 'nothing'}"
        )
    layers = [n for n, m in model.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))]
    other = [name for name, tensor in own.items() if tensors[name].shape != tensor.shape]
    for name in other:
        if name.rpartition(".")[0] not in layers[-1:]:
            raise ValueError(
                f"experiment.model.weights: {source} has {name} of shape "
                f"{tuple(tensors[name].shape)}, the network {tuple(own[name].shape)}"
            )
    if other:
        warnings.warn(
            f"{source} is for another number of classes: {', '.join(other)} start fresh",
            stacklevel=2,
        )
    model.load_state_dict({**own, **{k: v for k, v in tensors.items() if k not in other}})
