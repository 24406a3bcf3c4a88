"""Linear layers in PyTorch's own sparse format (CSR), for a CPU.

Measured with torch 2.14 (MKL, AVX2), one thread, float32 and a bias: how many times as fast as the
dense layer, medians of the ratios of runs that took turns. Not a promise for another machine.

    outputs x inputs   batch   zeros  .7    .8    .9    .95   .98
    100 x 300              1          .63   .65   .69   .70   .71
                          32          .62   .70   .81   .88   .92
    512 x 512              1          .71   .89  1.14  1.29  1.47
                          32          .81  1.11  1.63  2.24  2.86
    2048 x 2048            1         1.18  1.61  2.96  4.41  7.34
                          32         1.09  1.67  2.63  4.38  6.76
    4096 x 1024            1         1.50  1.95  3.02  4.15  6.83
                          32         1.35  1.59  3.25  5.10  7.71

nn.Linear with such a weight, without our loader's CsrLinear, is at 2048 x 2048 and a batch of 32
only .26, .45, .89 and 1.96 times as fast as dense with .8, .9, .95 and .98 of zeros.

Convolutions have no sparse kernel in torch. Attention's in_proj_weight is no linear layer, and a
MultiheadAttention uses the weight of its out_proj itself: both stay dense.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from rayprune.exporting.loaders import write_loader
from rayprune.exporting.loaders.torch_sparse import load
from rayprune.pruning.masks import Masks
from rayprune.snapshot.encoding import encode_tensors

FILE = "torch_sparse.safetensors"
SPARSE_ENOUGH = 0.8  # zeros; with fewer, CSR was slower, or hardly faster
LARGE_ENOUGH = 100_000  # weights; with fewer, CSR was slower however sparse
FORMATS = (torch.float32, torch.float64)  # which torch multiplies in CSR on a CPU


def write_torch_sparse(model: nn.Module, masks: Masks, folder: Path) -> nn.Module:
    """Write torch_sparse.safetensors and its loader, and return the model as the loader makes it.

    The model itself stays as it is. Raises a ``ValueError`` if none of its linear layers is pruned,
    large and sparse enough.
    """
    layers = _sparse_layers(model, masks)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for module in layers:
        name = f"{module}.weight" if module else "weight"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls CSR a beta
            csr = state.pop(name).to_sparse_csr()
        state[f"{name}:rows"] = csr.crow_indices().int()  # as MKL takes them, and half the bytes
        state[f"{name}:columns"] = csr.col_indices().int()
        state[f"{name}:values"] = csr.values()
    shapes = {module: list(layer.weight.shape) for module, layer in layers.items()}
    (folder / FILE).write_bytes(encode_tensors(state, shapes))
    write_loader("torch_sparse", folder)
    return load(copy.deepcopy(model), folder / FILE)


def _sparse_layers(model: nn.Module, masks: Masks) -> dict[str, nn.Linear]:
    """Module name -> layer, of those that CSR is for; a shared layer under each of its names.

    Not a subclass of nn.Linear, which may use its weight in its own way.
    """
    pruned = {id(model.get_parameter(name)) for name in masks}
    linear = {
        module: layer
        for module, layer in model.named_modules(remove_duplicate=False)
        if type(layer) is nn.Linear and id(layer.weight) in pruned
    }
    fitting = {module: layer for module, layer in linear.items() if _fits(layer)}
    if not fitting:
        raise ValueError(
            f"torch_sparse must have a pruned nn.Linear of float32 with at least {LARGE_ENOUGH:,} "
            f"weights, {SPARSE_ENOUGH:.0%} of them zero: it makes no other layer faster. Got "
            f"{_described(linear)}. Write --to mnn, which has sparse convolutions, or --to packed "
            "for a small file"
        )
    return fitting


def _fits(layer: nn.Linear) -> bool:
    is_large = layer.weight.numel() >= LARGE_ENOUGH and layer.weight.dtype in FORMATS
    return is_large and _zeros(layer) >= SPARSE_ENOUGH


def _zeros(layer: nn.Linear) -> float:
    return 1 - int(layer.weight.count_nonzero()) / layer.weight.numel()


def _described(layers: dict[str, nn.Linear]) -> str:
    """The largest layer in words."""
    if not layers:
        return "none that is pruned"
    module, layer = max(layers.items(), key=lambda item: item[1].weight.numel())
    return (
        f"as its largest {module or 'the model itself'} with {layer.weight.numel():,} weights of "
        f"{str(layer.weight.dtype).removeprefix('torch.')}, {_zeros(layer):.1%} zero"
    )
