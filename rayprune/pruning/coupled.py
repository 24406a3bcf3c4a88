"""Which filters must go together for a channel to be gone: the graph of channels of a network.

In a residual network several convolutions write one stream, and depthwise convolutions pass on the
channels that they read: a channel is gone for real only if all that write it have lost it (Li et
al. 2017 for residual networks; Fang et al. 2023, DepGraph, in general). torch-pruning's graph knows
which channel of one layer is which of another, through sums, concatenation and flattening;
`PaddedChannels` adds the shortcut without parameters, whose channels are shifted.
"""

import copy
from typing import Any

from torch import Tensor, nn

from rayprune.pruning.groups import Group
from rayprune.pruning.layers import CONVOLUTIONS
from rayprune.pruning.masks import Masks

Filter = tuple[int, int]
"""The place of its convolution in the model, and its own in the convolution."""
LIBRARY_ERRORS = (  # where it misreads
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
)


class PaddedChannels:
    """How torch-pruning reads and prunes nn.ConstantPad3d where it pads an image's channels.

    Indices are those of the output. A channel of zeros that goes makes the padding smaller; one of
    the input has gone there already. One that pads volumes, which have five dimensions, leaves
    channels as they are, and is to the library what it would be without this.
    """

    def __init__(self) -> None:
        self.num_inputs: dict[nn.ConstantPad3d, int] = {}  # of those that pad channels

    def prune_out_channels(self, pad: nn.ConstantPad3d, channels: list[int]) -> nn.Module:
        if pad not in self.num_inputs:
            return pad
        left, right, top, bottom, before, after = pad.padding
        end = before + self.num_inputs[pad]
        num_before = sum(channel < before for channel in channels)
        num_after = sum(channel >= end for channel in channels)
        self.num_inputs[pad] -= len(channels) - num_before - num_after
        pad.padding = (left, right, top, bottom, before - num_before, after - num_after)
        return pad

    prune_in_channels = prune_out_channels  # equal, for one brings about the other

    def get_out_channels(self, pad: nn.ConstantPad3d) -> int | None:
        if pad not in self.num_inputs:
            return None
        return pad.padding[-2] + self.num_inputs[pad] + pad.padding[-1]

    get_in_channels = get_out_channels

    def get_in_channel_groups(self, pad: nn.ConstantPad3d) -> int:
        return 1

    get_out_channel_groups = get_in_channel_groups

    def shift_(self, graph: Any) -> None:
        """Map channels of each padding's input to those of its output, and back, in a graph."""
        for pad in self.num_inputs:
            node = graph.module2node[pad]
            for source in node.inputs:
                for edge in source.dependencies:
                    if edge.target is node:
                        edge.index_mapping[1] = lambda indices, pad=pad: [
                            index._replace(idx=index.idx + pad.padding[-2]) for index in indices
                        ]
                for edge in node.dependencies:
                    if edge.target is source:
                        edge.index_mapping[1] = lambda indices, pad=pad: [
                            index._replace(idx=index.idx - pad.padding[-2])
                            for index in indices
                            if 0 <= index.idx - pad.padding[-2] < self.num_inputs[pad]
                        ]


def channel_graph(model: nn.Module, example: Tensor) -> Any:
    """torch-pruning's DependencyGraph of a model, which it puts into evaluation mode.

    Raises an ImportError where torch-pruning is missing, a ValueError where it cannot read the
    model.
    """
    try:
        import torch_pruning
    except ImportError as error:
        message = "following channels needs torch-pruning. Run: pip install rayprune[small]"
        raise ImportError(message) from error
    padded, graph = PaddedChannels(), torch_pruning.DependencyGraph()

    def note(pad: nn.ConstantPad3d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if inputs[0].ndim == 4:
            padded.num_inputs[pad] = inputs[0].shape[1]

    pads = [module for module in model.modules() if isinstance(module, nn.ConstantPad3d)]
    hooks = [pad.register_forward_hook(note) for pad in pads]
    try:
        graph.build_dependency(
            model, (example,), customized_pruners={nn.ConstantPad3d: padded}, verbose=False
        )
        padded.shift_(graph)
    except LIBRARY_ERRORS as error:
        message = f"torch-pruning cannot read the graph of {type(model).__name__}: {error!r}"
        raise ValueError(message) from error
    finally:
        for hook in hooks:
            hook.remove()
    return graph


def coupled_filters(model: nn.Module, masks: Masks, example: Tensor) -> tuple[Group, ...]:
    """The groups of filters that can only go together, of the convolutions that have a mask.

    `model` is the plain module, `example` a batch. A filter that can go alone is in none. The same
    on every rank: it depends on the network's structure alone. Raises as `channel_graph` does.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    graph = channel_graph(model, example)
    names = {
        module: f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS) and f"{name}.weight" in masks
    }
    places = {name: place for place, name in enumerate(names.values())}
    links: dict[Filter, Filter] = {}  # a filter -> one that it goes with; itself for the first one
    for layer, name in names.items():
        links |= {(places[name], row): (places[name], row) for row in range(layer.out_channels)}
    for layer, name in names.items():
        if layer not in graph.module2node:
            continue
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        for item in graph.get_pruning_group(layer, prune, list(range(layer.out_channels))):
            other = names.get(item.dep.target.module)
            if other is None or not graph.is_out_channel_pruning_fn(item.dep.handler):
                continue
            for row, root in zip(item.idxs, item.root_idxs, strict=True):
                pair = _first(links, (places[other], row)), _first(links, (places[name], root))
                links[max(pair)] = min(pair)
    return _grouped(links, tuple(names.values()))


def _first(links: dict[Filter, Filter], each: Filter) -> Filter:
    """The first of the filters that go with this one; the way there is shortened."""
    first = each
    while links[first] != first:
        first = links[first]
    while links[each] != first:
        links[each], each = first, links[each]
    return first


def _grouped(links: dict[Filter, Filter], names: tuple[str, ...]) -> tuple[Group, ...]:
    """Joint filters of the same convolutions are a group."""
    joint: dict[Filter, list[Filter]] = {}
    for each in links:
        joint.setdefault(_first(links, each), []).append(each)
    alike: dict[tuple[int, ...], list[list[Filter]]] = {}
    for filters in joint.values():
        if len(filters) > 1:
            alike.setdefault(tuple(place for place, _ in filters), []).append(filters)
    return tuple(
        tuple(
            (names[place], tuple(filters[number][1] for filters in group))
            for number, place in enumerate(places)
        )
        for places, group in alike.items()
    )
