"""What is left of a network without its removed filters.

The channel of a removed filter is zero, so a weight that reads it multiplies zeros, and a network
that is smaller for real does not have it: a VGG-16 without half of its filters has a quarter of its
multiply-adds, not half. A channel is dead for a layer only if all that is summed into it is zero.

Which inputs are zero is seen in one forward pass of a network that has other weights (probe.py).
"""

import torch
from torch import Tensor, nn

from rayprune.pruning.layers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from rayprune.pruning.masks import Masks, apply_
from rayprune.pruning.probe import CENTRING, lifted, positive, positive_copy
from rayprune.pruning.structured import channel_masks, evaluate

_LAYERS = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, nn.Linear)


def without_dead_inputs(model: nn.Module, masks: Masks, example: Tensor) -> Masks:
    """`masks | channel_masks(...)`, less the weights that read nothing but zeros.

    `model` is the plain module, `example` a batch of its inputs, of which only the shape counts;
    both stay as they are. What reads its weight without calling its layer, such as attention, keeps
    all its inputs. The masks are on the model's device.
    """
    device = next(model.parameters()).device
    masks = {name: mask.to(device) for name, mask in masks.items()}
    left = masks | channel_masks(model, masks, example.to(device))
    generator = torch.Generator().manual_seed(0)
    probe = positive_copy(model, generator)
    apply_(probe, left)
    read = _read_weights(probe, positive(example.shape, generator).to(example).to(device))
    return left | {name: masks[name] & read[name] for name in masks if name in read}


def _read_weights(model: nn.Module, example: Tensor) -> Masks:
    """For each weight of a layer that is called, where it reads something other than zeros."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: Masks = {}

    def note(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        name = names.get(id(module.weight))
        if name is not None:
            reads = _reads(module, (*args, *kwargs.values())[0])
            found[name] = found[name] | reads if name in found else reads  # any use will do

    layers = [module for module in model.modules() if isinstance(module, _LAYERS)]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in layers]
    try:
        with lifted(module for module in model.modules() if isinstance(module, CENTRING)):
            evaluate(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _reads(module: nn.Module, inputs: Tensor) -> Tensor:
    """Where one layer's weight reads living channels, as a mask that broadcasts to its shape."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    channels = inputs.movedim(1 - weight.ndim, 0)  # also where there is no batch dimension
    living = (channels != 0).reshape(len(channels), -1).any(1)
    if isinstance(module, TRANSPOSED_CONVOLUTIONS):  # weights are (inputs, outputs / groups, ...)
        return living.view(-1, *[1] * (weight.ndim - 1))
    groups = living.view(-1, weight.shape[1])  # weights are (outputs, inputs / groups, ...)
    rows = groups.repeat_interleave(weight.shape[0] // len(groups), 0)
    return rows.view(*rows.shape, *[1] * (weight.ndim - 2))
