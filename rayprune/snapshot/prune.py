"""The prune step of a plan: new masks for a snapshot, and what the step took away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from rayprune.config import Prune
from rayprune.plan import Stage
from rayprune.pruning.allocation import prune_weights, shapes_of
from rayprune.pruning.groups import Group
from rayprune.pruning.masks import Masks, not_ignored
from rayprune.snapshot.snapshot import Snapshot


def prune(snapshot: Snapshot, stage: Stage, how: Prune, coupled: Sequence[Group] = ()) -> Masks:
    """The masks of this stage, made from a snapshot's weights and masks; masks only shrink.

    No weight is touched. `coupled` are filters of the network that go together. The dense run
    prunes nothing, and a goal that an earlier stage has passed already removes nothing more. Raises
    ``ValueError`` where the allocation cannot meet the goal.
    """
    if stage.is_dense:
        return snapshot.masks
    assert stage.sparsity is not None, "a cycle has a goal"
    names = not_ignored(snapshot.masks, stage.ignore)
    after = prune_weights(
        {name: snapshot.weights[name] for name in names},
        {name: snapshot.masks[name] for name in names},
        sparsity=stage.sparsity,
        allocation=how.allocation,
        pattern=how.pattern,
        network=shapes_of(snapshot.masks),
        round_channels=how.round_channels,
        coupled=coupled,
    )
    return {**snapshot.masks, **after}


def norm_drop(parameters: Mapping[str, Tensor], before: Masks, after: Masks) -> float:
    """ALLR's ``d1 = ||W - W^p|| / (||W|| sqrt(q))`` of one prune step.

    `parameters` are all weights and biases just before the step, with the pruned ones at zero;
    `after` holds the masks of the prunable weights, ``q`` is the fraction of their remaining ones
    that the step removes. 0 if it removes none. Source: Zimmer et al., ICLR 2023.
    """
    removed = {name: before[name] & ~mask for name, mask in after.items()}
    num_removed = sum(int(mask.sum()) for mask in removed.values())
    num_remaining = sum(int(before[name].sum()) for name in after)
    if num_removed == 0:
        return 0.0
    lost = sum(
        float(parameters[name][mask].double().square().sum()) for name, mask in removed.items()
    )
    whole = sum(float(weight.double().square().sum()) for weight in parameters.values())
    return math.sqrt(lost / whole) / math.sqrt(num_removed / num_remaining)
