"""Linear layers with two zeros in every four inputs (2:4), which NVIDIA GPUs multiply as such.

torch packs them on the GPU itself. Whether that is faster depends on shapes, batch and GPU: measure
it. In half precision, so outputs differ from float32's in the third digit. torch calls this part of
it a prototype.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from rayprune.exporting.loaders import write_loader
from rayprune.exporting.loaders.semi_structured import load
from rayprune.pruning.masks import Masks
from rayprune.snapshot.encoding import encode_tensors

FILE = "semi_structured.safetensors"
CAPABILITY = (8, 0)  # Ampere, the first with such cores
MULTIPLE_OF = 16  # inputs and outputs of a layer of float16, by torch.sparse with cuSPARSELt


def check_semi_structured() -> None:
    """Raise a ``ValueError`` unless this machine has what 2:4 needs: such a GPU, and cuSPARSELt."""
    if not torch.cuda.is_available():
        got = "a machine without a GPU that torch can use"
    elif (capability := torch.cuda.get_device_capability()) < CAPABILITY:
        got = f"{torch.cuda.get_device_name()}, which has {capability[0]}.{capability[1]}"
    elif not torch.backends.cusparselt.is_available():
        got = "a build of torch without cuSPARSELt"
    else:
        return
    raise ValueError(
        "semi-structured must have a CUDA GPU of compute capability 8.0 or more and torch with "
        f"cuSPARSELt, got {got}. Export on such a machine, or write --to torch_sparse for a CPU"
    )


def write_semi_structured(model: nn.Module, masks: Masks, folder: Path) -> nn.Module:
    """Write semi_structured.safetensors and its loader, and return the model as the loader makes
    it, on the GPU.

    The model itself stays as it is. Raises a ``ValueError`` if none of its linear layers is 2:4 and
    of a shape that torch takes, if a weight is too large for float16, or without such a GPU.
    """
    modules = _layers_of_2_in_4(model, masks)
    check_semi_structured()
    state = {name: _in_half(name, weight) for name, weight in model.state_dict().items()}
    (folder / FILE).write_bytes(encode_tensors(state, {"modules": modules}))
    write_loader("semi_structured", folder)
    return load(copy.deepcopy(model), folder / FILE)


def _layers_of_2_in_4(model: nn.Module, masks: Masks) -> list[str]:
    """Names of the layers; not of a subclass of nn.Linear, which may use its weight in its way."""
    pruned = {id(model.get_parameter(name)) for name in masks}
    linear = {
        module: layer.weight
        for module, layer in model.named_modules()
        if type(layer) is nn.Linear and id(layer.weight) in pruned
    }
    found = [module for module, weight in linear.items() if _is_2_in_4(weight)]
    fitting = [module for module in found if _has_fitting_shape(linear[module])]
    if not found:
        raise ValueError(
            f"semi-structured must have an nn.Linear layer with two zeros in every four inputs, "
            f'got none among {len(linear)} that are pruned. Write prune.pattern: "2:4"'
        )
    if not fitting:
        shapes = ", ".join(f"{module} {tuple(linear[module].shape)}" for module in found[:5])
        raise ValueError(
            f"semi-structured must have a 2:4 layer whose inputs and outputs are multiples of "
            f"{MULTIPLE_OF}, got {shapes}. Choose such widths, or write --to packed"
        )
    return fitting


def _is_2_in_4(weight: Tensor) -> bool:
    if weight.shape[1] % 4:
        return False
    return bool(((weight != 0).view(-1, 4).sum(1) <= 2).all())


def _has_fitting_shape(weight: Tensor) -> bool:
    return all(size % MULTIPLE_OF == 0 for size in weight.shape)


def _in_half(name: str, weight: Tensor) -> Tensor:
    """As float16; whole numbers as they are."""
    if not weight.is_floating_point():
        return weight.detach().cpu()
    half = weight.detach().cpu().half()
    if not torch.equal(half.isfinite(), weight.cpu().isfinite()):
        raise ValueError(
            f"semi-structured must have weights that float16 holds, up to 65504, got "
            f"{float(weight.abs().max()):.4g} in {name}. Write --to torch_sparse"
        )
    return half
