"""Filters that go together, as layers of their own.

Where the outputs of several convolutions are summed, a channel of the sum is gone only when all of
them have lost it. A group lines such filters up: the first ones of its members are one *joint
filter*, the second ones another. Joined, a group is a layer like any other (joint filters x their
weights), so that what scores, shares out and masks single filters does the same to joint ones.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rayprune.pruning.masks import Masks, Weights

Member = tuple[str, tuple[int, ...]]
"""A convolution's weight, and the filters of it that are in the group."""
Group = tuple[Member, ...]
"""Members with as many filters each. A convolution may be in several groups, a filter in one."""


def complete(groups: Sequence[Group], masks: Masks) -> dict[str, Group]:
    """Name -> group for all filters of `masks`, in the order of the masks.

    Filters in no group make one of their own. So do those of a group of which another member has no
    mask: it stays, and so does the channel. Names are those of the members.
    """
    inside = [group for group in groups if all(name in masks for name, _ in group)]
    alone = {name: dict.fromkeys(range(len(mask))) for name, mask in masks.items()}
    for group in inside:
        for name, filters in group:
            for each in filters:
                del alone[name][each]
    inside += [((name, tuple(filters)),) for name, filters in alone.items() if filters]
    place = {name: number for number, name in enumerate(masks)}
    inside.sort(key=lambda group: min((place[name], filters[0]) for name, filters in group))
    found = {" + ".join(name for name, _ in group): group for group in inside}
    assert len(found) == len(inside), "groups of the same members must be one group"
    return found


def join(tensors: Weights, groups: Mapping[str, Group]) -> dict[str, Tensor]:
    """Each group's weights, or masks, as one layer: float[joint filters, weights of each, 1]."""
    joined = {}
    for name, group in groups.items():
        parts = [tensors[each][list(rows)].flatten(1) for each, rows in group]
        joined[name] = torch.cat(parts, 1).unsqueeze(-1)
    return joined


def separate(joined: Masks, groups: Mapping[str, Group], masks: Masks) -> Masks:
    """What `join` joined, as the masks of the layers: `masks`, with other values."""
    found = {name: torch.empty_like(mask) for name, mask in masks.items()}
    for name, group in groups.items():
        sizes = [masks[each][0].numel() for each, _ in group]
        parts = joined[name].flatten(1).split(sizes, 1)
        for (each, rows), part in zip(group, parts, strict=True):
            found[each][list(rows)] = part.reshape(-1, *masks[each].shape[1:])
    return found


def shares(
    counts: Mapping[str, int], groups: Mapping[str, Group], masks: Masks
) -> dict[str, float]:
    """Zeros that each group takes, where layers take `counts`: its part of each member's."""
    return {
        name: sum(counts[each] * len(rows) / len(masks[each]) for each, rows in group)
        for name, group in groups.items()
    }
