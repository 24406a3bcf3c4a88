"""Which weights a prune step removes: score, allocate, mask.

An allocation spreads the weights to keep over the layers; inside a layer the smallest in magnitude
go. Everything is computed for the cumulative sparsity and applied to the weights that remain, so
masks only shrink.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.config.pattern import check_sparsity, n_of_m
from rayprune.pruning.groups import Group, complete, join, separate, shares
from rayprune.pruning.masks import Masks, Weights, keep_largest, num_pruned, num_weights
from rayprune.pruning.rounding import at_least, to_multiples
from rayprune.pruning.structured import filter_masks, n_of_m_masks, smallest_filters

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LayerRow:
    """One line of the report on layers."""

    name: str
    shape: tuple[int, ...]
    num_weights: int
    num_nonzero: int
    density: float
    """num_nonzero / num_weights, in [0, 1]."""


def prune_weights(
    weights: Weights,
    masks: Masks,
    *,
    sparsity: float,
    allocation: str,
    pattern: str = "unstructured",
    network: Shapes | None = None,
    round_channels: int = 1,
    coupled: Sequence[Group] = (),
) -> Masks:
    """The prune step: new masks, inside the old ones, for the cumulative `sparsity` in [0, 1].

    `weights` and `masks` are those of the prunable and not ignored parameters, in model order; the
    goal is a fraction of all of them. The unstructured pattern prunes exactly `round(sparsity * n)`
    weights, or no more if as many are gone already; structured.py says what "2:4" and "filter" do.
    `network` has the shapes of all prunable parameters, the ignored ones as well, by which
    uniform_plus knows the first and the last layer; by default nothing is ignored. The other two
    are of the pattern filter: each convolution keeps a multiple of `round_channels` filters, or all
    that it has, and the filters of a group in `coupled` go together, as filters of one layer.
    Raises a ValueError for a goal that cannot be met and for weights that are NaN or infinite.
    """
    assert list(weights) == list(masks), "weights and masks must name the same parameters"
    if not 0 <= sparsity <= 1:
        raise ValueError(f"prune.sparsity must be in [0, 1], got {sparsity}.")
    check_sparsity(pattern, sparsity)
    if not weights:
        raise ValueError(
            "the network has no weights to prune: none of convolution and linear layers, or "
            "prune.ignore leaves none of them. Name others in prune.include, or ignore fewer"
        )
    goal = max(round(sparsity * num_weights(masks)), num_pruned(masks))
    if pattern == "filter":
        return _prune_filters(weights, masks, goal, allocation, network, round_channels, coupled)
    if numbers := n_of_m(pattern):
        return n_of_m_masks(weights, masks, *numbers)

    scores = {name: magnitude(weight, masks[name]) for name, weight in weights.items()}
    if allocation == "global":
        return keep_largest(scores, goal)
    if allocation == "lamp":
        counts = lamp_counts(weights, masks, goal)
    else:
        counts = layer_counts(
            allocation, shapes_of(masks), goal, _remaining(masks), network=network
        )
    return {name: keep_largest({name: scores[name]}, counts[name])[name] for name in masks}


def magnitude(weight: Tensor, mask: Tensor) -> Tensor:
    """The absolute values of the weights that remain, and -1 for the pruned ones."""
    return weight.detach().abs().masked_fill_(~mask, -1)


def lamp_scores(weights: Tensor) -> Tensor:
    """`w^2 / sum of u^2 over u >= w`, for the 1-D weights of one layer, sorted from the smallest.

    Of equal weights the later one counts as the larger, so the last score is 1, and no global
    threshold empties a layer before all others are down to one weight (Lee et al. 2021).
    """
    squares = weights.detach().double().square().sort().values
    not_smaller = squares.flip(0).cumsum(0).flip(0)
    return squares / not_smaller.clamp_min(torch.finfo(torch.double).tiny)


def lamp_counts(weights: Weights, masks: Masks, goal: int) -> dict[str, int]:
    """How many weights of each layer lie under the global threshold on the LAMP score.

    A score grows with its weight: the weights to prune are that many smallest ones of the layer.
    """
    scores = {name: lamp_scores(weight[masks[name]]) for name, weight in weights.items()}
    kept = keep_largest(scores, goal - num_pruned(masks))
    return {name: mask.numel() - int(kept[name].count_nonzero()) for name, mask in masks.items()}


def layer_counts(
    allocation: str,
    shapes: Shapes,
    num_pruned: int,
    remaining: Mapping[str, int] | None = None,
    *,
    network: Shapes | None = None,
) -> dict[str, int]:
    """How many weights of each layer a layer-wise allocation prunes; they sum to `num_pruned`.

    `allocation` is uniform, uniform_plus (Gale et al. 2019) or erk (Evci et al. 2020); `remaining`
    says how many weights a layer still has, all of them by default, and none gets any back.
    `network` is as for `prune_weights`, `shapes` by default.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    remaining = sizes if remaining is None else remaining
    num_kept = sum(sizes.values()) - num_pruned
    if allocation == "uniform":
        kept = _share_out(num_kept, sizes, remaining)
    elif allocation == "erk":
        # The density is proportional to sum(shape) / prod(shape), so the count to sum(shape).
        kept = _share_out(num_kept, {name: sum(shapes[name]) for name in shapes}, remaining)
    elif allocation == "uniform_plus":
        kept = _uniform_plus(num_kept, network or shapes, sizes, remaining)
    else:
        raise ValueError(
            f"prune.allocation must be uniform, uniform_plus or erk here, got {allocation!r}."
        )
    return {name: sizes[name] - kept[name] for name in shapes}


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shapes of weights or masks, in their order."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def emptied_layers(masks: Masks) -> list[str]:
    """The layers without a weight left: nothing passes through them any more."""
    return [name for name, mask in masks.items() if not mask.any()]


def layer_report(masks: Masks) -> list[LayerRow]:
    """A row for each layer, in model order."""
    remaining = _remaining(masks)
    return [
        LayerRow(name, tuple(m.shape), m.numel(), remaining[name], remaining[name] / m.numel())
        for name, m in masks.items()
    ]


def _prune_filters(
    weights: Weights,
    masks: Masks,
    goal: int,
    allocation: str,
    network: Shapes | None,
    round_channels: int,
    coupled: Sequence[Group],
) -> Masks:
    """Masks without the smallest filters, for `goal` zeros as nearly as whole filters allow."""
    layers = {name: mask for name, mask in masks.items() if mask.ndim > 2}
    groups = complete(coupled, layers)
    filters, joined = join(layers, groups), join(weights, groups)
    sizes = {name: mask[0].numel() for name, mask in filters.items()}
    left = {name: int(mask.flatten(1).any(1).count_nonzero()) for name, mask in filters.items()}
    least = {name: max(min(round_channels, number), 1) for name, number in left.items()}
    goal -= num_pruned(masks) - num_pruned(layers)  # what linear layers lack already
    reachable = sum((len(mask) - least[name]) * sizes[name] for name, mask in filters.items())
    if goal > reachable:
        whole = f"{round_channels} filters" if round_channels > 1 else "a filter"
        members = [member for group in groups.values() for member in group]
        has_parts = any(len(rows) < len(layers[name]) for name, rows in members)
        each = "each part of a convolution" if has_parts else "each convolution"
        or_else = "add linear layers to prune.ignore"
        if round_channels > 1:
            or_else = f"lower prune.round_channels, or {or_else}"
        raise ValueError(
            f"prune.sparsity must be at most {reachable / num_weights(masks):.4f} here for "
            f"prune.pattern filter: linear layers and {whole} of {each} stay. "
            f"Lower it, or {or_else}."
        )
    if allocation == "global":
        counts = smallest_filters(joined, filters, goal, least)
    else:
        of_layers = layer_counts(
            allocation, shapes_of(layers), goal, _remaining(layers), network=network
        )
        zeros = shares(of_layers, groups, layers)
        counts = {name: round(zeros[name] / size) for name, size in sizes.items()}
    if round_channels > 1:
        num_kept = num_weights(filters) - goal
        kept = {name: len(mask) - counts[name] for name, mask in filters.items()}
        wanted = at_least(kept, least, sizes, num_kept)
        near = num_weights(masks) / 1000
        rounded = to_multiples(wanted, left, sizes, round_channels, num_kept, near)
        counts = {name: len(mask) - rounded[name] for name, mask in filters.items()}
    return masks | separate(filter_masks(joined, filters, counts), groups, layers)


def _uniform_plus(
    num_kept: int, network: Shapes, sizes: Mapping[str, int], remaining: Mapping[str, int]
) -> dict[str, int]:
    """The first convolution whole, of the last linear layer at least a fifth, the rest uniform.

    Where one of these two is ignored, no other layer takes its place.
    """
    first = [name for name, shape in network.items() if len(shape) > 2][:1]
    last = [name for name, shape in network.items() if len(shape) == 2][-1:]
    whole = {name: remaining[name] for name in first if name in sizes}
    fifth = {name: min(-(-sizes[name] // 5), remaining[name]) for name in last if name in sizes}
    least = sum(whole.values()) + sum(fifth.values())
    if num_kept < least:
        total = sum(sizes.values())
        raise ValueError(
            f"prune.sparsity must be at most {1 - least / total:.4f} for prune.allocation "
            f"uniform_plus and this model, got {1 - num_kept / total:.4f}: its first convolution "
            "stays dense and its last linear layer keeps a fifth. Lower it, or take erk or global."
        )
    kept = _share_out(num_kept, sizes, remaining, whole)
    if any(kept[name] < count for name, count in fifth.items()):
        kept = _share_out(num_kept, sizes, remaining, whole | fifth)
    return kept


def _share_out(
    num_kept: int,
    shares: Mapping[str, int],
    limits: Mapping[str, int],
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Whole numbers in proportion to `shares`, none over its limit, that sum to `num_kept`.

    Layers at their limit, or fixed, are set aside and the others share the rest. Fractions go to
    the largest remainders, earlier layers first. All in integers: the same on every machine.
    """
    kept = dict(fixed or {})
    free = [name for name in shares if name not in kept]
    while True:
        rest, whole = num_kept - sum(kept.values()), sum(shares[name] for name in free)
        full = [name for name in free if rest * shares[name] >= limits[name] * whole]
        if not full:
            break
        kept |= {name: limits[name] for name in full}
        free = [name for name in free if name not in kept]
    remainders = {}
    for name in free:
        kept[name], remainders[name] = divmod(rest * shares[name], whole)
    missing = num_kept - sum(kept.values())
    for name in sorted(free, key=lambda name: -remainders[name])[:missing]:
        kept[name] += 1
    assert sum(kept.values()) == num_kept, "the shares must sum to what is kept"
    return kept


def _remaining(masks: Masks) -> dict[str, int]:
    return {name: int(mask.count_nonzero()) for name, mask in masks.items()}
