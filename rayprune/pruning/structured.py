"""Patterns beyond single weights: n of each m inputs stay, or whole filters go.

**n:m.** Of each m consecutive weights along the input dimension (input channels, at each kernel
position of a convolution) the n largest stay. A layer whose inputs are not a multiple of m, such as
a first convolution on three colours, stays dense, and the reached sparsity says so.

**filter** (Li et al. 2017). Convolutions lose whole output filters, the smallest in L1 norm; linear
layers stay. `global` ranks the filters of all layers by mean magnitude, so that sizes compare, and
takes the number whose zeros come nearest to the goal; layer-wise allocations round each layer's
share to whole filters. A layer keeps at least one. Filters that must go together (groups.py) count
as one. While training, `channel_masks` hold a removed channel at zero behind batch normalisation,
too; `remove_filters` then takes it out for real.

Weights are read as (outputs, inputs, *kernel). Transposed convolutions have it the other way round:
list them in `prune.ignore`.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.pruning.coupled import LIBRARY_ERRORS, channel_graph
from rayprune.pruning.layers import BATCH_NORMS, CONVOLUTIONS
from rayprune.pruning.masks import Masks, Weights, apply_, keep_largest, require_finite
from rayprune.pruning.probe import silent_norms


def n_of_m_masks(weights: Weights, masks: Masks, n: int, m: int) -> Masks:
    """Masks, inside the old ones, that keep at most `n` of each `m` consecutive inputs.

    Raises a ValueError when the inputs of no layer are a multiple of `m`.
    """
    require_finite(weights)
    fitting = [name for name, mask in masks.items() if mask.shape[1] % m == 0]
    if not fitting:
        raise ValueError(
            f'prune.pattern "{n}:{m}" needs a layer whose inputs are a multiple of {m}, got none.'
        )
    return masks | {name: _n_of_m(weights[name], masks[name], n, m) for name in fitting}


def filter_masks(weights: Weights, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Masks, inside the old ones, without the `counts[name]` smallest filters of each layer.

    All layers are convolutions; each keeps one filter at least, and lost filters stay lost.
    """
    kept = {}
    for name, mask in masks.items():
        norms = filter_norms(weights[name], mask)
        filters = keep_largest({name: norms}, min(counts[name], len(norms) - 1))[name]  # (outputs,)
        kept[name] = mask & filters.view(-1, *[1] * (mask.ndim - 1))
    return kept


def filter_norms(weight: Tensor, mask: Tensor) -> Tensor:
    """Each filter's L1 norm over its number of weights, float[outputs]; -1 for a lost one."""
    norms = (weight.detach() * mask).abs().flatten(1).mean(1)
    return norms.masked_fill_(~mask.flatten(1).any(1), -1)


def smallest_filters(
    weights: Weights, masks: Masks, num_zeros: int, least: Mapping[str, int]
) -> dict[str, int]:
    """How many filters each convolution loses when the smallest of all layers go together.

    Their weights are as near to `num_zeros` as whole filters come, from below at a tie. `least` has
    how many each layer keeps, one or more of those that it still has.
    """
    norms = {name: filter_norms(weights[name], mask) for name, mask in masks.items()}
    for name, norm in norms.items():
        largest = norm.argsort(descending=True, stable=True)[: least[name]]
        norm[largest] = torch.finfo(norm.dtype).max
    sizes = [torch.full_like(norms[n], masks[n][0].numel(), dtype=torch.long) for n in norms]
    order = torch.cat(list(norms.values())).argsort(stable=True)
    zeros = torch.cat([order.new_zeros(1), torch.cat(sizes)[order].cumsum(0)])  # of 0, 1, 2 ...
    kept = keep_largest(norms, int((zeros - num_zeros).abs().argmin()))
    return {name: len(norm) - int(kept[name].count_nonzero()) for name, norm in norms.items()}


def channel_masks(model: nn.Module, masks: Masks, example: Tensor) -> Masks:
    """Masks for the rest of a removed filter's channel: its bias, and the batch norms that read it.

    A batch norm turns a removed filter's zeros into its own bias. `masks | channel_masks(...)` in
    the place of `masks` makes the channel exactly zero, as `remove_filters` needs it. `model` is
    the plain module, `example` a batch: a pass in evaluation mode shows which norm reads which
    layer. A norm that reads something else, as a sum or a concatenation before an activation, loses
    the channels in which that is zero whatever the weights are.
    """
    staying = {
        model.get_submodule(name.rpartition(".")[0]): mask.flatten(1).any(1)
        for name, mask in masks.items()
        if mask.ndim > 2
    }
    found, others = _behind_convolutions(model, staying, example)
    if others and not all(stays.all() for stays in staying.values()):
        for name, stays in silent_norms(model, masks | found, others, example).items():
            found |= {f"{name}.{own}": stays for own in ("weight", "bias")}
    return {name: stays for name, stays in found.items() if not stays.all()}


def _behind_convolutions(
    model: nn.Module, staying: Mapping[nn.Module, Tensor], example: Tensor
) -> tuple[Masks, list[str]]:
    """Masks for biases of convolutions and for norms that read one; other norms that run once."""
    names = {module: name for name, module in model.named_modules()}
    outputs: list[tuple[Tensor, nn.Module]] = []
    found: Masks = {}
    runs: dict[nn.Module, int] = {}  # of norms that read something else

    def note(module: nn.Module, stays: Tensor) -> None:
        for name, parameter in module.named_parameters(names[module], recurse=False):
            if parameter.ndim == 1:
                found[name] = found[name] | stays if name in found else stays

    def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs.append((output, module))
        if module in staying:
            note(module, staying[module])

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sources = [layer for output, layer in outputs if inputs[0] is output]
        for layer in sources:
            if layer in staying:
                note(module, staying[layer])
        # One that reads a convolution, if only once, goes with that alone.
        runs[module] = runs.get(module, 0) + (2 if sources else 1)

    plain = [module for module in names if isinstance(module, CONVOLUTIONS)]
    norms = [module for module in names if isinstance(module, BATCH_NORMS)]
    hooks = [module.register_forward_hook(after_convolution) for module in plain]
    hooks += [module.register_forward_pre_hook(before_norm) for module in norms]
    try:
        evaluate(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return found, [names[norm] for norm, num in runs.items() if num == 1 and norm.bias is not None]


def remove_filters(model: nn.Module, masks: Masks, example: Tensor) -> nn.Module:
    """A smaller plain module, in evaluation mode, from which the masked filters are gone.

    Its outputs are those of `model` under `masks | channel_masks(...)`, which is checked in double
    precision on `example`, a batch of noise. A filter goes only if its channel is zero for all that
    read it: where a residual sum adds a living one, it stays, as zeros. Raises an ImportError if
    torch-pruning is missing, which `pip install rayprune[small]` brings, and a ValueError if that
    library cannot read the model.
    """
    dtype, example = next(model.parameters()).dtype, example.double()
    whole = copy.deepcopy(model).double().requires_grad_(True)
    apply_(whole, masks | channel_masks(whole, masks, example))
    names = [n for n, mask in masks.items() if mask.ndim > 2 and not mask.flatten(1).any(1).all()]
    smaller = _without_zero_channels(whole, names, example)
    if smaller is None:
        # Some operation's channels are mapped wrongly: take the layers one by one, if they may go.
        smaller = whole
        for name in names:
            candidate = _without_zero_channels(smaller, [name], example)
            smaller = smaller if candidate is None else candidate
    return smaller.to(dtype).eval()


def evaluate(model: nn.Module, example: Tensor) -> Any:
    """The outputs in evaluation mode; each module's own mode is as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(example)
    finally:
        for module, mode in modes:
            module.training = mode


def _without_zero_channels(model: nn.Module, names: list[str], example: Tensor) -> nn.Module | None:
    """A copy without the zero channels of these convolutions; None if its outputs differ."""
    smaller = copy.deepcopy(model)
    graph = channel_graph(smaller, example)
    try:
        for name in names:
            layer = smaller.get_submodule(name.rpartition(".")[0])
            if layer in graph.module2node:
                _remove_zero_channels_(layer, graph)
        torch.testing.assert_close(
            evaluate(smaller, example), evaluate(model, example), rtol=1e-7, atol=1e-9
        )
    except LIBRARY_ERRORS:  # other values, or shapes that do not fit
        return None
    return smaller


def _remove_zero_channels_(layer: nn.Module, graph: Any) -> None:
    """Remove the layer's output channels that no member of their group keeps alive."""
    assert isinstance(layer.weight, Tensor)
    remove = graph.get_pruner_of_module(layer).prune_out_channels
    channels = list(range(layer.weight.shape[0]))
    group = graph.get_pruning_group(layer, remove, channels)
    alive: set[int] = set()
    for item in group:
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        living = _living_channels(item.dep.target.module, writes)
        alive.update(
            root
            for channel, root in zip(item.idxs, item.root_idxs, strict=True)
            if living is None or channel in living
        )
    gone = [channel for channel in channels if channel not in alive]
    if gone and len(gone) < len(channels):
        graph.get_pruning_group(layer, remove, gone).prune()


def _living_channels(module: nn.Module, writes: bool) -> set[int] | None:
    """The channels in which the module writes something other than zero; None for all of them."""
    if isinstance(module, CONVOLUTIONS) and 1 < module.groups < module.out_channels:
        return None  # its groups must stay of equal size
    if not writes:
        return set()
    if isinstance(module, nn.Module) and not list(module.parameters()):
        return None if isinstance(module, BATCH_NORMS) else set()
    if not isinstance(module, (*CONVOLUTIONS, *BATCH_NORMS, nn.Linear)):
        return None
    nonzero = [(p.unsqueeze(-1) != 0).flatten(1).any(1) for p in module.parameters()]
    return set(torch.stack(nonzero).any(0).nonzero().flatten().tolist())


def _n_of_m(weight: Tensor, mask: Tensor, n: int, m: int) -> Tensor:
    """The mask of one layer; of equal weights the first ones go."""
    scores = weight.detach().abs().masked_fill_(~mask, -1).unflatten(1, (-1, m))
    smallest = scores.argsort(dim=2, stable=True)[:, :, : m - n]  # outputs x inputs/m x m-n x ...
    kept = torch.ones_like(scores, dtype=torch.bool).scatter_(2, smallest, False)
    return kept.flatten(1, 2) & mask
