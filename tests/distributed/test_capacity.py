"""How many slots a cluster's nodes hold, and what is said when they hold none."""

import pytest

from rayprune.config import Scaling
from rayprune.distributed.capacity import num_slots, unmet

BIG = [(8, 4)]
HEAD = (0, 0)


def nodes(*pairs, alive=True, kind=None, labels=None):
    """Entries as ``ray.nodes()`` has them: Ray leaves out what a node has none of."""
    named = [{"CPU": float(cpus), "GPU": float(gpus)} for cpus, gpus in pairs]
    resources = [{name: number for name, number in each.items() if number} for each in named]
    kinds = {} if kind is None else {f"accelerator_type:{kind}": 1.0}
    return [
        {"Alive": alive, "Resources": {"memory": 1e9, **kinds, **each}, "Labels": labels or {}}
        for each in resources
    ]


@pytest.mark.parametrize(
    ("scaling", "pairs", "slots"),
    [
        ({}, BIG, 8),  # as many as the CPUs hold
        ({"workers": 2}, BIG, 4),
        ({"cpus_per_worker": 3}, BIG, 2),
        ({"gpus_per_worker": 1}, BIG, 4),  # the GPUs are fewer than the CPUs
        ({"gpus_per_worker": 2}, BIG, 2),
        ({"gpus_per_worker": 0.25}, BIG, 8),
        ({"gpus_per_worker": 0.25}, [(8, 1)], 4),
        ({"gpus_per_worker": 0.4}, [(8, 2)], 4),  # two on each GPU, none across both
        ({"gpus_per_worker": 0.1}, [(16, 1)], 10),
        ({"workers": 16}, BIG, 1),  # a cluster that is still too small gets one
        ({}, [HEAD], 1),
        ({"gpus_per_worker": 1}, [], 1),
        ({"cpus_per_worker": 2}, [(3, 0), (3, 0)], 2),  # six CPUs, but a worker lies on one node
        ({"workers": 2}, [HEAD, (1, 0), (1, 0)], 1),  # a slot of two spreads
        ({"workers": 2, "cpus_per_worker": 2}, [(3, 0), (3, 0), (8, 0)], 3),
        ({"gpus_per_worker": 1}, [(16, 0), (1, 8)], 1),  # CPUs here and GPUs there hold nobody
        ({"slots": 64}, BIG, 8),  # what the user allows holds no more
    ],
)
def test_slots_are_what_single_nodes_hold(scaling, pairs, slots):
    assert num_slots(Scaling.model_validate(scaling), nodes(*pairs)) == slots


def test_dead_nodes_hold_nothing():
    assert num_slots(Scaling(), nodes((8, 0), alive=False) + nodes((2, 0))) == 2
    assert unmet(Scaling(), nodes((8, 0), alive=False)) is not None


@pytest.mark.parametrize(
    ("scaling", "pairs"),
    [
        ({}, [HEAD, (1, 0)]),
        ({"workers": 2}, [(1, 0), (1, 0)]),
        ({"cpus_per_worker": 2}, [(3, 0), (3, 0)]),
        ({"workers": 4, "gpus_per_worker": 0.25}, [(4, 1)]),
    ],
)
def test_nothing_is_said_of_what_fits(scaling, pairs):
    assert unmet(Scaling.model_validate(scaling), nodes(*pairs)) is None


@pytest.mark.parametrize(
    ("scaling", "pairs", "sentence"),
    [
        (
            {"cpus_per_worker": 4, "workers": 2},
            [HEAD, (3, 0), (3, 0)],
            "each of the 2 workers needs 4 CPUs; the cluster has 2 nodes with 3 CPUs: waiting for "
            "a node that can hold one, or write scaling.cpus_per_worker=3",
        ),
        (
            {},
            [HEAD],
            "the worker needs 1 CPU; the cluster has no node with CPUs: waiting for a node that "
            "can hold one",
        ),
        (
            {"workers": 4},
            [(2, 0), (1, 0)],
            "each of the 4 workers needs 1 CPU; the cluster has 1 node with 2 CPUs, 1 node with "
            "1 CPU, which hold 3 of them: waiting for room for the others, or write "
            "scaling.workers=2",
        ),
        (
            {"gpus_per_worker": 1},
            [(8, 0)],
            "the worker needs 1 CPU and 1 GPU; the cluster has 1 node with 8 CPUs and 0 GPUs: "
            "waiting for a node that can hold one, or write scaling.gpus_per_worker=0",
        ),
        (
            {"gpus_per_worker": 0.25, "cpus_per_worker": 16},
            [(8, 1)],
            "the worker needs 16 CPUs and 0.25 GPUs; the cluster has 1 node with 8 CPUs and 1 GPU: "
            "waiting for a node that can hold one, or write scaling.cpus_per_worker=8",
        ),
    ],
)
def test_what_is_missing_is_said_with_what_there_is_and_what_helps(scaling, pairs, sentence):
    assert unmet(Scaling.model_validate(scaling), nodes(*pairs)) == sentence


MIXED = [
    *nodes((8, 2), kind="A100", labels={"zone": "a", "ray.io/market-type": "spot"}),
    *nodes((8, 4), kind="T4", labels={"zone": "b"}),
    *nodes((16, 0), labels={"zone": "a"}),
]


@pytest.mark.parametrize(
    ("scaling", "slots"),
    [
        ({"gpus_per_worker": 1}, 6),
        ({"gpus_per_worker": 1, "accelerator_type": "A100"}, 2),
        ({"gpus_per_worker": 1, "accelerator_type": "T4"}, 4),
        ({"accelerator_type": "T4"}, 8),
        ({"labels": {"zone": "a"}}, 24),
        ({"labels": {"zone": "a", "ray.io/market-type": "spot"}}, 8),
        ({"gpus_per_worker": 1, "labels": {"zone": "b"}}, 4),
    ],
)
def test_only_nodes_of_the_kind_that_is_asked_for_count(scaling, slots):
    scaling = Scaling.model_validate(scaling)
    assert num_slots(scaling, MIXED) == slots and unmet(scaling, MIXED) is None


@pytest.mark.parametrize(
    ("scaling", "needs"),
    [
        (
            {"gpus_per_worker": 1, "accelerator_type": "H100"},
            "1 CPU and 1 GPU on a node with accelerator type H100; ",
        ),
        ({"labels": {"zone": "c"}}, "1 CPU on a node with label zone=c; "),
        (
            {"accelerator_type": "T4", "labels": {"zone": "a", "disk": "ssd"}},
            "1 CPU on a node with accelerator type T4 and label zone=a and label disk=ssd; ",
        ),
    ],
)
def test_a_kind_that_no_node_is_of_is_named(scaling, needs):
    said = unmet(Scaling.model_validate(scaling), MIXED)
    assert said.startswith(f"the worker needs {needs}the cluster has ")
    assert said.endswith(": waiting for a node that can hold one"), "nothing smaller would help"


def test_nodes_of_an_older_ray_have_no_labels():
    (node,) = nodes((8, 0))
    del node["Labels"]
    assert num_slots(Scaling(), [node]) == 8
    assert unmet(Scaling(labels={"zone": "a"}), [node]) is not None


@pytest.mark.parametrize("cpus", [4, 64, 10**9])
@pytest.mark.parametrize("workers", [1, 2, 6])
def test_what_helps_really_helps(workers, cpus):
    there = nodes((3, 0), (5, 1))
    scaling = Scaling(workers=workers, cpus_per_worker=cpus, gpus_per_worker=0)
    said = unmet(scaling, there)
    if said is not None and " or write " in said:
        field, value = said.rpartition("scaling.")[2].split("=")
        assert unmet(scaling.model_copy(update={field: int(value)}), there) is None
