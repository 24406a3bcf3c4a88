"""What a slot holds is found by its tag, and nothing else is."""

import time

import pytest
from ray.util.placement_group import placement_group, placement_group_table

from rayprune.distributed.connection import connected
from rayprune.distributed.groups import make_tag, remove_groups

SOON_S = 30.0  # far above what it takes: for machines that are busy


@pytest.fixture(scope="module")
def a_ray():
    with connected():
        yield


def states():
    """Tag -> state of the placement groups that have one."""
    return {
        bundle["memory"]: group["state"]
        for group in placement_group_table().values()
        for bundle in group["bundles"].values()
        if "memory" in bundle
    }


def test_only_the_groups_with_a_slots_tag_are_removed(a_ray):
    one, two, waits = (make_tag() for _ in range(3))
    workers = {"CPU": 0.001, "memory": one}
    held = [placement_group([workers, workers]), placement_group([{"CPU": 0.001, "memory": two}])]
    untagged = placement_group([{"CPU": 0.001}])
    placement_group([{"no such resource": 1, "memory": waits}])
    assert all(group.wait(SOON_S) for group in [*held, untagged])
    remove_groups(one)
    remove_groups(waits)
    remove_groups(one)  # once more is no mistake
    deadline = time.monotonic() + SOON_S
    removed = dict.fromkeys([one, waits], "REMOVED")
    while states() != removed | {two: "CREATED"} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert states() == removed | {two: "CREATED"}
    assert placement_group_table(untagged)["state"] == "CREATED"


def test_tags_are_unlike_each_other_and_those_of_other_studies():
    """So alike that a worker's memory is next to nothing, and whole bytes as Ray wants them."""
    tags = [make_tag() for _ in range(1_000)]
    assert len(set(tags)) > 990, "by chance alone, of 15 million"
    assert all(1 << 20 <= tag < 1 << 24 for tag in tags)
