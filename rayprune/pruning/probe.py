"""A network in which nothing but a mask makes a zero.

With positive weights, on a positive image, a channel is zero only if it must be, whatever the
network does between its layers (sums, concatenation, padding, flattening), and no graph has to be
traced. A norm that subtracts a mean of the image, as group and layer norm do, gives a removed
filter's channel that mean: behind it nothing is zero.
"""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rayprune.pruning.layers import BATCH_NORMS
from rayprune.pruning.masks import Masks, apply_

CENTRING = (nn.GroupNorm, nn.LayerNorm)

log = logging.getLogger(__name__)


def silent_norms(
    model: nn.Module, masks: Masks, names: Iterable[str], example: Tensor
) -> dict[str, Tensor]:
    """Batch norm -> its channels that need not stay, since all that they read is zero under masks.

    Norms are looked at in the order in which they run, each behind those that are silent already.
    `names` are norms that have a bias and run once, `example` is a batch, of which only the shape
    counts. Channels that are zero without any mask stay. The model and random numbers are left as
    they are; the same on every rank.
    """
    devices = [example.device] if example.is_cuda else []
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            probe = positive_copy(model, generator)
            image = positive(example.shape, generator).to(example)
            anyway = _zero_inputs(probe, dict.fromkeys(names), image)
            apply_(probe, masks)
            zero = _zero_inputs(probe, anyway, image)
    except Exception as error:  # of the user's network: masks of its convolutions are right as such
        log.warning(
            "batch norms that read no convolution keep the channels of removed filters: %s does "
            "not run with other weights (%r)",
            type(model).__name__,
            error,
        )
        return {}
    return {name: ~channels for name, channels in zero.items()}


def _zero_inputs(
    probe: nn.Module, norms: Mapping[str, Tensor | None], image: Tensor
) -> dict[str, Tensor]:
    """Each norm's channels that read zeros, but for the given ones; those become silent."""
    found: dict[str, Tensor] = {}
    names = {probe.get_submodule(name): name for name in norms}

    def silence(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        anyway = norms[names[norm]]
        zero = (inputs[0] == 0).transpose(0, 1).flatten(1).all(1)  # (channels,)
        found[names[norm]] = zero if anyway is None else zero & ~anyway
        if anyway is None:
            return output
        return output.masked_fill(found[names[norm]].view(-1, *[1] * (output.ndim - 2)), 0)

    # Without a bias to silence, a norm makes zeros what its running mean makes of them.
    free = [m for m in probe.modules() if isinstance(m, BATCH_NORMS) and m.bias is None]
    centring = [module for module in probe.modules() if isinstance(module, CENTRING)]
    hooks = [norm.register_forward_hook(silence) for norm in names]
    try:
        with lifted([*free, *centring]):
            probe(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def positive_copy(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network in evaluation mode, with other parameters and neutral statistics."""
    probe = copy.deepcopy(model).eval()
    _make_positive_(probe, generator)
    return probe


def positive(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """In [.5, 1.5), and never all alike: a norm that subtracts a mean must leave something."""
    return torch.rand(shape, generator=generator) + 0.5


@contextmanager
def lifted(norms: Iterable[nn.Module]) -> Iterator[None]:
    """While open, these norms give no zeros.

    What they make negative, an activation would make zero.
    """
    hooks = [norm.register_forward_hook(lambda *args: args[-1].abs() + 0.5) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _make_positive_(model: nn.Module, generator: torch.Generator) -> None:
    """Positive parameters that keep the scale of what passes through, and neutral statistics."""
    for parameter in model.parameters():
        values = positive(parameter.shape, generator)
        parameter.copy_(values / parameter[0].numel() if parameter.ndim > 1 else values)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("var")))
