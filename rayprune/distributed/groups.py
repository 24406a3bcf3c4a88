"""The resources that a slot holds, found by a tag.

Ray Train gives its placement groups no name, and one whose creator was killed keeps its resources
until the job ends. So each worker asks for a few bytes of memory of an odd number, its slot's tag.
"""

from __future__ import annotations

import logging
import random

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group_table,
    remove_placement_group,
)

log = logging.getLogger(__name__)


def make_tag() -> int:
    """A tag unlike those of other slots and studies on the cluster: bytes, at most 16 MB."""
    return random.SystemRandom().randrange(1 << 20, 1 << 24)


def remove_groups(tag: int) -> None:
    """Give back what the slot with this tag holds or waits for; its workers end."""
    for name, group in placement_group_table().items():
        is_tagged = any(bundle.get("memory") == tag for bundle in group["bundles"].values())
        if is_tagged and group["state"] != "REMOVED":
            log.info("removing the placement group %s", name)
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
