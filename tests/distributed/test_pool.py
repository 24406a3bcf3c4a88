"""Slots follow the work and the room that a cluster has, whatever happens to either."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import ray
from asked import Asked

from rayprune.config import Scaling
from rayprune.distributed import pool as module
from rayprune.distributed.pool import MAX_WAITING, SlotPool
from rayprune.distributed.slots import MAX_STARTS, resources_of


class OnNode(NamedTuple):
    """Ray's own takes the ids of real nodes alone."""

    node_id: str
    soft: bool


class Run:
    """Ray's reference to what an actor returns for a slot."""

    def __init__(self, number, tag, actor):
        self.number, self.tag, self.actor, self.ended, self.error = number, tag, actor, False, None


class Actor:
    """What runs the slots of a node."""

    def __init__(self, cluster, node):
        self.cluster, self.node, self.is_killed = cluster, node, False
        self.run = SimpleNamespace(remote=self._run)

    def _run(self, number, tag, place, scaling):
        run = self.cluster.runs[number] = Run(number, tag, self)
        return run


class Cluster:
    """Nodes that hold so many slots each; a group or the workers of a slot take the room of one."""

    def __init__(self, **room):
        self.room = room
        self.groups = {}  # name -> the node where it is placed, or None
        self.asked = []  # options of every group
        self.runs, self.actors, self.removed_tags = {}, [], []
        self.at_work = {}  # number of a slot -> its node

    # as Ray's functions

    def placement_group(self, bundles, **options):
        name = f"group{len(self.asked)}"
        self.asked.append({"bundles": bundles, **options})
        self.groups[name] = None
        self._place()
        return SimpleNamespace(id=SimpleNamespace(hex=lambda: name))

    def placement_group_table(self, group):
        node = self.groups[group.id.hex()]
        if node is None:
            return {"state": "PENDING", "bundles_to_node_id": {0: ""}}
        return {"state": "CREATED", "bundles_to_node_id": {0: node}}

    def remove_placement_group(self, group):
        del self.groups[group.id.hex()]
        self._place()

    def remote(self, service):
        def start(num_cpus, max_concurrency, scheduling_strategy):
            assert (num_cpus, scheduling_strategy.soft) == (0, False)
            self.actors.append(Actor(self, scheduling_strategy.node_id))
            return self.actors[-1]

        return SimpleNamespace(
            options=lambda **options: SimpleNamespace(remote=lambda: start(**options))
        )

    def wait(self, runs, num_returns, timeout):
        assert num_returns == len(runs)
        return [run for run in runs if run.ended], [run for run in runs if not run.ended]

    def get(self, asked):
        if isinstance(asked, Run) and asked.error is not None:
            raise asked.error
        return asked

    def kill(self, actor):
        assert not actor.is_killed
        actor.is_killed = True
        there = [n for n, run in self.runs.items() if run.actor is actor and not run.ended]
        self.ends(*there, error=ACTOR_DIED)

    # what happens

    def _place(self):
        for name, node in self.groups.items():
            if node is None:
                self.groups[name] = next((n for n in self.room if self.free(n) > 0), None)

    def free(self, node):
        taken = [*self.groups.values(), *self.at_work.values()]
        return self.room[node] - taken.count(node)

    def node_of(self, number):
        return self.runs[number].actor.node

    def joins(self, *numbers):
        """The workers of these slots are there, where their groups were placed."""
        for number in numbers:
            node = self.node_of(number)
            assert self.free(node) > 0, "somebody else has taken the room"
            self.at_work[number] = node

    def ends(self, *numbers, error=None):
        for number in numbers:
            self.at_work.pop(number, None)
            self.runs[number].ended, self.runs[number].error = True, error
        self._place()

    @property
    def moving(self):
        return [n for n, run in self.runs.items() if not run.ended and n not in self.at_work]

    @property
    def living_actors(self):
        return [actor.node for actor in self.actors if not actor.is_killed]


class Study:
    """The ledger, as far as a pool asks it."""

    def __init__(self, cluster):
        self.cluster, self.useful = cluster, 0

    def useful_slots(self):
        return self.useful, frozenset(self.cluster.at_work)

    def slot_lost(self, slot, reason, is_blamed=True):
        assert not is_blamed, "the stage that ran there has nothing to do with it"

    def abandon(self, error):
        self.useful = 0


@pytest.fixture
def make(monkeypatch):
    """A pool on nodes with room for so many slots."""

    def make(most=None, useful=0, only_node=None, scaling=None, **room):
        cluster = Cluster(**room)
        for name in ("placement_group", "placement_group_table", "remove_placement_group"):
            monkeypatch.setattr(module, name, getattr(cluster, name))
        names = ("remote", "wait", "get", "kill")
        fake = {name: getattr(cluster, name) for name in names}
        monkeypatch.setattr(module, "ray", SimpleNamespace(**fake, exceptions=ray.exceptions))
        monkeypatch.setattr(module, "NodeAffinitySchedulingStrategy", OnNode)
        monkeypatch.setattr(module, "remove_groups", cluster.removed_tags.append)
        ledger = Asked(Study(cluster))
        ledger.answering.useful = useful
        place = SimpleNamespace(ledger=ledger)
        pool = SlotPool(place, Scaling.model_validate(scaling or {}), most, only_node)
        return pool, cluster, ledger

    return make


def settle(pool, cluster, looks=10):
    """Look on while slots move in at once."""
    for _ in range(looks):
        pool.look()
        cluster.joins(*cluster.moving)


def said(ledger, word):
    return [words[1:] for words in ledger.words if words[0] == word]


ACTOR_DIED = ray.exceptions.ActorDiedError()


def failed(text="Traceback ...\n  line 7\nImportError: no package\n"):
    return ray.exceptions.RayError(text)


# ---- how many ----


@pytest.mark.parametrize(
    ("most", "useful", "slots"), [(None, 2, 2), (None, 9, 3), (1, 2, 1), (4, 9, 3), (4, 0, 0)]
)
def test_there_are_as_many_slots_as_are_useful_allowed_and_held(make, most, useful, slots):
    pool, cluster, _ = make(most, useful, one=2, two=1)
    settle(pool, cluster)
    assert pool.num_slots == len(cluster.at_work) == slots


@pytest.mark.parametrize("seed", range(20))
def test_there_are_never_more_than_useful_or_allowed_whatever_happens(make, seed):
    """New ones, that is: a slot that is busy is not ended because others are done."""
    draw = random.Random(seed)
    most = draw.choice([None, 1, 3])
    pool, cluster, ledger = make(most, one=3, two=2, three=1)
    for _ in range(100):
        before = pool.num_slots + len(cluster.groups)
        useful = ledger.answering.useful = draw.choice([0, 1, 2, 5, 9])
        pool.look()
        there = pool.num_slots + len(cluster.groups)
        running = [n for n, run in cluster.runs.items() if not run.ended]
        assert pool.num_slots == len(running)
        assert there <= max(before, min(useful, most or useful))
        assert most is None or there <= most
        assert len(cluster.groups) <= max(0, min(useful, most or useful) - pool.num_slots)
        moving = [n for n in running if n not in cluster.at_work]
        assert max(Counter(map(cluster.node_of, moving)).values(), default=0) <= 1
        for number in running:
            what = draw.choice(["joins", "ends", "dies", "node dies", "", ""])
            if what == "joins" and number in moving:
                cluster.joins(number)
            elif what == "ends":
                cluster.ends(number)
            elif what == "dies" and number in cluster.at_work:
                cluster.ends(number, error=failed())
    ledger.answering.useful = 6
    settle(pool, cluster, 30)
    assert pool.num_slots == (most or 6), "all that there is room for"


def test_groups_are_dropped_when_they_are_no_longer_useful(make):
    pool, cluster, ledger = make(useful=5)
    pool.look()
    assert list(cluster.groups.values()) == [None] * 5
    ledger.answering.useful = 2
    pool.look()
    assert len(cluster.groups) == 2 and len(cluster.asked) == 5
    ledger.answering.useful = 0
    pool.look()
    assert not cluster.groups


def test_demand_that_no_node_can_hold_is_bounded(make):
    pool, cluster, _ = make(useful=10 * MAX_WAITING)
    for _ in range(3):
        pool.look()
    assert len(cluster.groups) == len(cluster.asked) == MAX_WAITING


def test_a_cluster_that_grows_gets_the_slots_that_waited(make):
    pool, cluster, _ = make(useful=3, one=1)
    settle(pool, cluster)
    assert (pool.num_slots, list(cluster.groups.values())) == (1, [None, None])
    cluster.room["two"] = 2
    cluster._place()
    settle(pool, cluster)
    assert sorted(cluster.at_work.values()) == ["one", "two", "two"]


def test_an_idle_slot_that_ended_comes_again_with_the_work(make):
    pool, cluster, ledger = make(useful=1, one=1)
    settle(pool, cluster)
    ledger.answering.useful = 0
    cluster.ends(0)
    settle(pool, cluster)
    assert (pool.num_slots, cluster.groups, cluster.living_actors) == (0, {}, [])
    ledger.answering.useful = 1
    settle(pool, cluster)
    assert cluster.at_work == {1: "one"}, "a slot of its own, with a number of its own"
    assert said(ledger, "slot_lost") == said(ledger, "abandon") == []


# ---- what is asked for ----


@pytest.mark.parametrize("labels", [{}, {"zone": "a"}])
def test_a_group_is_as_large_as_the_slots_workers_which_alone_have_a_tag(make, labels):
    """An autoscaler may not know how much memory its nodes will have."""
    scaling = {"workers": 2, "cpus_per_worker": 3, "labels": labels}
    pool, cluster, _ = make(useful=2, scaling=scaling, one=2)
    pool.look()
    assert len(cluster.asked) == 2
    for asked in cluster.asked:
        assert asked["bundles"] == [resources_of(Scaling.model_validate(scaling))] * 2
        assert asked["bundle_label_selector"] == ([labels] * 2 if labels else None)
    pool.look()
    assert cluster.runs[0].tag >= 1 << 20


# ---- moving in ----


def test_one_slot_at_a_time_moves_in_on_a_node_and_on_several_nodes_at_once(make):
    pool, cluster, _ = make(useful=5, one=3, two=2)
    pool.look()
    for _ in range(3):
        pool.look()
        assert sorted(map(cluster.node_of, cluster.runs)) == ["one", "two"]
    cluster.joins(0, 1)
    pool.look()
    assert sorted(map(cluster.node_of, cluster.runs)) == ["one", "one", "two", "two"]


def test_nothing_takes_the_room_that_a_slot_moves_into(make):
    """More is wanted than there is room for, at any time."""
    pool, cluster, _ = make(useful=9, one=2, two=1)
    for _ in range(10):
        pool.look()
        assert all(cluster.free(cluster.node_of(n)) > 0 for n in cluster.moving)
        if cluster.moving:
            cluster.joins(cluster.moving[0])
    assert pool.num_slots == 3


def test_a_slot_that_takes_long_to_move_in_keeps_the_others_waiting_only_so_long(make, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    pool, cluster, _ = make(useful=2, one=2)
    pool.look()
    for _ in range(3):
        pool.look()
    assert len(cluster.runs) == 1
    now += module.MOVE_S + 1
    pool.look()
    assert len(cluster.runs) == 2


# ---- what dies ----


def test_a_slot_that_worked_and_ended_by_an_error_is_replaced_for_ever(make):
    pool, cluster, ledger = make(useful=1, one=1)
    for number in range(3 * MAX_STARTS):
        settle(pool, cluster)
        assert cluster.at_work == {number: "one"}
        cluster.ends(number, error=failed())
    pool.look()
    assert said(ledger, "slot_lost")[0] == (0, "it ended: ImportError: no package")
    assert len(said(ledger, "slot_lost")) == 3 * MAX_STARTS
    assert said(ledger, "abandon") == []


def test_all_slots_that_worked_may_die_at_once(make):
    pool, cluster, ledger = make(useful=2 * MAX_STARTS, one=MAX_STARTS, two=MAX_STARTS)
    settle(pool, cluster)
    cluster.ends(*list(cluster.at_work), error=failed())
    settle(pool, cluster)
    assert len(cluster.at_work) == 2 * MAX_STARTS and said(ledger, "abandon") == []


def test_slots_that_never_come_to_work_abandon_the_study(make):
    """No trial is to wait for them for ever."""
    pool, cluster, ledger = make(useful=1, one=1)
    while len(cluster.runs) < MAX_STARTS or not cluster.runs[MAX_STARTS - 1].ended:
        assert said(ledger, "abandon") == []
        pool.look()
        cluster.ends(*cluster.moving, error=failed())
    pool.look()
    assert said(ledger, "abandon") == [("ImportError: no package",)]


def test_a_slot_whose_workers_cannot_be_started_abandons_a_study_in_which_none_works(make):
    pool, cluster, ledger = make(useful=1, one=1)
    pool.look()
    pool.look()
    cluster.ends(0, error=failed("RuntimeError: no workers could be started: no package"))
    pool.look()
    assert said(ledger, "abandon") == [("RuntimeError: no workers could be started: no package",)]


def test_a_node_on_which_nothing_starts_does_not_end_a_study_that_runs_on_others(make):
    pool, cluster, ledger = make(useful=2, good=1, bad=1)
    pool.look()
    pool.look()
    cluster.joins(0)
    for _ in range(3 * MAX_STARTS):
        pool.look()
        error = failed("RuntimeError: no workers could be started: no package")
        cluster.ends(*cluster.moving, error=error)
    pool.look()
    assert cluster.at_work == {0: "good"} and said(ledger, "abandon") == []


def test_the_actor_of_a_node_without_slots_is_killed(make):
    pool, cluster, ledger = make(useful=3, one=2, two=1)
    settle(pool, cluster)
    ledger.answering.useful = 0
    assert sorted(cluster.living_actors) == ["one", "two"]
    on_one = [number for number, node in cluster.at_work.items() if node == "one"]
    cluster.ends(on_one[0])
    pool.look()
    assert sorted(cluster.living_actors) == ["one", "two"]
    cluster.ends(on_one[1])
    pool.look()
    assert cluster.living_actors == ["two"]


def test_the_actor_of_a_lost_node_is_forgotten(make):
    """Its slots may be heard to have ended one after the other; a new actor outlives that."""
    pool, cluster, ledger = make(useful=2, one=2)
    settle(pool, cluster)
    (first,) = cluster.actors
    cluster.ends(0, error=ACTOR_DIED)
    pool.look()
    assert first.is_killed
    cluster.runs[1].ended = False  # as far as is known
    pool.look()
    assert cluster.runs[2].actor is not first
    cluster.joins(2)
    cluster.runs[1].ended = True
    settle(pool, cluster)
    assert cluster.living_actors == ["one"] and sorted(cluster.at_work) == [2, 3]
    assert said(ledger, "abandon") == []


def test_what_an_ended_slot_held_is_given_back(make):
    pool, cluster, _ = make(useful=1, one=1)
    settle(pool, cluster)
    cluster.ends(0, error=failed())
    pool.look()
    assert cluster.removed_tags == [cluster.runs[0].tag]


# ---- the beginning and the end ----


def test_the_actor_of_the_only_node_starts_before_anything_is_wanted(make):
    pool, cluster, ledger = make(only_node="one", one=2)
    assert cluster.living_actors == ["one"]
    ledger.answering.useful = 2
    settle(pool, cluster)
    assert len(cluster.actors) == 1 and len(cluster.at_work) == 2


def test_the_end_waits_for_slots_and_kills_those_that_do_not_end(make, monkeypatch):
    pool, cluster, _ = make(useful=3, one=2)
    settle(pool, cluster)
    waited = []

    def wait(runs, num_returns, timeout):
        waited.append((len(runs), num_returns, timeout))
        return [], runs

    monkeypatch.setattr(module.ray, "wait", wait)
    pool.end()
    assert waited == [(2, 2, module.END_S)]
    assert not cluster.groups and cluster.living_actors == []
    assert set(cluster.removed_tags) == {run.tag for run in cluster.runs.values()}


def test_an_end_without_slots_waits_for_nothing(make):
    pool, cluster, _ = make(useful=1, only_node="one", one=0)
    pool.look()
    pool.end()
    assert not cluster.groups and cluster.living_actors == []


def test_to_kill_leaves_nothing_behind(make):
    pool, cluster, _ = make(useful=4, one=2, two=1)
    settle(pool, cluster)
    assert cluster.groups
    pool.kill()
    assert not cluster.groups and cluster.living_actors == []
    assert set(cluster.removed_tags) == {run.tag for run in cluster.runs.values()}
