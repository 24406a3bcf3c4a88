"""Slots that follow the work: they start where it is and the cluster has room, and end when idle.

A slot that the work wants is at first a placement group as large as its workers, which costs no
process: it is the demand that an autoscaler sees. Once it is placed somewhere, Ray Train's run
takes its place there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayprune.config import Scaling
from rayprune.distributed.groups import make_tag, remove_groups
from rayprune.distributed.place import Place
from rayprune.distributed.slots import MAX_SLOTS, MAX_STARTS, SlotsOfNode, resources_of

END_S = 60.0  # how long slots may take to end before they are killed
MOVE_S = 60.0  # how long a slot may take to move in before others stop waiting for it
MAX_WAITING = 32  # placement groups that wait for room at the same time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Slot:
    """A slot that was started."""

    number: int
    tag: int
    node: str
    actor: Any
    """Of its node."""
    run: Any
    """Ray's reference to what its actor returns when it has ended."""
    started_at: float


class SlotPool:
    """The slots of a study, as the driver sees them; `look` brings them in line with the work."""

    def __init__(
        self, place: Place, scaling: Scaling, most: int | None, only_node: str | None = None
    ) -> None:
        """At most `most` slots; without a number, as many as the work wants.

        A cluster of one node needs no demand to say where slots will be: what holds them starts at
        once.
        """
        self._place, self._scaling, self._most = place, scaling, most
        self._numbers = count()
        self._wanted: list[PlacementGroup] = []
        """Room for a slot's workers each, asked for or had; untagged, as an autoscaler may not know
        how much memory its nodes will have."""
        self._slots: dict[int, _Slot] = {}
        self._actors: dict[str, Any] = {}
        self._living: frozenset[int] = frozenset()
        self._joined: set[int] = set()
        self._failed_starts = 0
        if only_node is not None:
            self._actor_on(only_node)

    def look(self) -> None:
        """Start what the work wants and the cluster holds; see what has ended."""
        useful, living = ray.get(self._place.ledger.useful_slots.remote())
        self._living = living
        self._joined |= living
        if living:
            self._failed_starts = 0
        self._see_ended()
        self._move_in()
        self._ask(useful)

    @property
    def num_slots(self) -> int:
        """Slots that were started and have not ended."""
        return len(self._slots)

    def end(self) -> None:
        """Wait for the slots to end by themselves, then kill those that do not."""
        self.wait_for_end()
        self.kill()

    def wait_for_end(self) -> None:
        """Wait for the slots to end by themselves, as they do once there is no more work."""
        runs = [slot.run for slot in self._slots.values()]
        if runs:
            ray.wait(runs, num_returns=len(runs), timeout=END_S)

    def kill(self) -> None:
        """End the slots at once; what they ran goes on from its last epoch some other time."""
        for actor in self._actors.values():
            ray.kill(actor)
        for group in self._wanted:
            remove_placement_group(group)
        for slot in self._slots.values():
            remove_groups(slot.tag)

    def _see_ended(self) -> None:
        """Forget slots that ended; one that ended by an error is replaced, if it ever worked."""
        runs = {slot.run: slot for slot in self._slots.values()}
        ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=0) if runs else ([], [])
        for run in ended:
            slot = runs[run]
            del self._slots[slot.number]
            remove_groups(slot.tag)
            try:
                ray.get(run)
            except ray.exceptions.RayError as error:
                self._replace(slot, error)
            if all(other.node != slot.node for other in self._slots.values()):
                self._forget(slot)

    def _replace(self, slot: _Slot, error: Exception) -> None:
        """What an ended slot ran is wanted again; no trial is to wait for slots that never work."""
        reason = str(error).strip().split("\n")[-1].strip()  # where a traceback ends
        ledger = self._place.ledger
        ledger.slot_lost.remote(slot.number, f"it ended: {reason}", is_blamed=False)
        if isinstance(error, ray.exceptions.RayActorError):
            self._forget(slot)
        if slot.number not in self._joined:
            self._failed_starts += 1
        # Where others work, it is this slot's node that cannot.
        is_hopeless = not self._living and "no workers could be started" in reason
        if is_hopeless or self._failed_starts >= MAX_STARTS:
            ledger.abandon.remote(reason)

    def _forget(self, slot: _Slot) -> None:
        """An actor without slots would keep the node's memory; maybe there is a new one already."""
        if self._actors.get(slot.node) is slot.actor:
            ray.kill(self._actors.pop(slot.node))

    def _move_in(self) -> None:
        """Slots take the place of their placement groups, one after the other on a node.

        What still waits for room is asked for again later: it would take the room that a slot moves
        into.
        """
        placed = _nodes_of(self._wanted)
        busy = {slot.node for slot in self._moving()}
        ready = {}
        for group in self._wanted:
            node = placed.get(group.id.hex())
            if node is not None and node not in busy:
                ready[node] = group
                busy.add(node)
        if not ready:
            return
        for group in [group for group in self._wanted if group.id.hex() not in placed]:
            self._drop(group)
        for node, group in ready.items():
            self._drop(group)
            self._start(node)

    def _start(self, node: str) -> None:
        number, tag = next(self._numbers), make_tag()
        actor = self._actor_on(node)
        run = actor.run.remote(number, tag, self._place, self._scaling)
        self._slots[number] = _Slot(number, tag, node, actor, run, time.monotonic())

    def _actor_on(self, node: str) -> Any:
        if node not in self._actors:
            slots_of_node: Any = ray.remote(SlotsOfNode)
            self._actors[node] = slots_of_node.options(
                num_cpus=0,
                max_concurrency=MAX_SLOTS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote()
        return self._actors[node]

    def _moving(self) -> list[_Slot]:
        """Slots whose workers are not there yet."""
        now = time.monotonic()
        return [
            slot
            for slot in self._slots.values()
            if slot.number not in self._joined and now - slot.started_at < MOVE_S
        ]

    def _ask(self, useful: int) -> None:
        """Ask for room for as many slots as are useful, and no more."""
        most = useful if self._most is None else min(useful, self._most)
        lacking = most - len(self._slots) - len(self._wanted)
        for group in self._wanted[: max(0, -lacking)]:
            self._drop(group)
        if self._moving():
            return  # it would get the room that they move into
        for _ in range(min(lacking, MAX_WAITING - len(self._wanted))):
            self._wanted.append(self._want())

    def _want(self) -> PlacementGroup:
        scaling = self._scaling
        return placement_group(
            [resources_of(scaling)] * scaling.workers,
            bundle_label_selector=[scaling.labels] * scaling.workers if scaling.labels else None,
        )

    def _drop(self, group: PlacementGroup) -> None:
        self._wanted.remove(group)
        remove_placement_group(group)


def _nodes_of(groups: Collection[PlacementGroup]) -> Mapping[str, str]:
    """Id of each group that is placed -> the node of its first worker."""
    tables = {group.id.hex(): placement_group_table(group) for group in groups}
    return {
        name: table["bundles_to_node_id"][0]
        for name, table in tables.items()
        if table.get("state") == "CREATED"
    }
