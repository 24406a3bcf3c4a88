"""Whether a cluster's nodes hold what a study asks for, and how often; nodes as ``ray.nodes()``.

What counts is each node by itself: a worker cannot lie across two, so sums over the cluster promise
slots that never start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rayprune.config import Scaling

Node = Mapping[str, Any]

GPU_UNITS = 10_000  # Ray counts shares of a GPU in ten-thousandths


def num_slots(scaling: Scaling, nodes: Sequence[Node]) -> int:
    """Slots that the nodes hold, at least one."""
    return max(1, _places(scaling, nodes) // scaling.workers)


def unmet(scaling: Scaling, nodes: Sequence[Node]) -> str | None:
    """Why one slot cannot start on these nodes, what there is and what helps; None if it can."""
    places = _places(scaling, nodes)
    if places >= scaling.workers:
        return None
    who = "the worker" if scaling.workers == 1 else f"each of the {scaling.workers} workers"
    sentence = f"{who} needs {_needs(scaling)}; {_what_there_is(scaling, nodes)}"
    if places:
        sentence += f", which hold {places} of them: waiting for room for the others"
    else:
        sentence += ": waiting for a node that can hold one"
    remedy = next((text for text, other in _changes(scaling, nodes) if _fits(other, nodes)), None)
    return f"{sentence}, or write {remedy}" if remedy else sentence


def _fits(scaling: Scaling, nodes: Sequence[Node]) -> bool:
    return _places(scaling, nodes) >= scaling.workers


def _places(scaling: Scaling, nodes: Sequence[Node]) -> int:
    """Workers that the nodes hold, each on one of them."""
    fitting = [node for node in nodes if _has_kind(scaling, node)]
    return sum(_places_of(scaling, cpus, gpus) for cpus, gpus in _resources(fitting))


def _has_kind(scaling: Scaling, node: Node) -> bool:
    """Whether a node has the accelerator and the labels that a worker asks for."""
    kind, labels = scaling.accelerator_type, node.get("Labels") or {}
    has_accelerator = kind is None or f"accelerator_type:{kind}" in node["Resources"]
    return has_accelerator and scaling.labels.items() <= labels.items()


def _places_of(scaling: Scaling, cpus: float, gpus: float) -> int:
    held = int(cpus // scaling.cpus_per_worker)
    share = round(scaling.gpus_per_worker * GPU_UNITS)
    if not share:
        return held
    # A share lies on one GPU: 0.4 fits twice on each, and not five times on two.
    on_gpus = int(gpus) * (GPU_UNITS // share) if share < GPU_UNITS else gpus * GPU_UNITS // share
    return min(held, int(on_gpus))


def _resources(nodes: Sequence[Node]) -> list[tuple[float, float]]:
    """CPUs and GPUs of each node that has work to give room to, the largest first.

    A head without CPUs is none of them.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    pairs = [(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive]
    return sorted((pair for pair in pairs if pair[0]), reverse=True)


def _changes(scaling: Scaling, nodes: Sequence[Node]) -> Iterator[tuple[str, Scaling]]:
    """What may be written instead, the least change first."""
    for workers in range(scaling.workers - 1, 0, -1):
        if scaling.workers % workers == 0:  # so it divides the batch, as the number given does
            yield _change(scaling, "workers", workers)
    most = max((int(cpus) for cpus, _ in _resources(nodes)), default=0)
    for cpus in range(min(most, scaling.cpus_per_worker - 1), 0, -1):
        yield _change(scaling, "cpus_per_worker", cpus)
    if scaling.gpus_per_worker:
        yield _change(scaling, "gpus_per_worker", 0)


def _change(scaling: Scaling, field: str, value: int) -> tuple[str, Scaling]:
    return f"scaling.{field}={value}", scaling.model_copy(update={field: value})


def _needs(scaling: Scaling) -> str:
    with_gpus = scaling.gpus_per_worker > 0
    amounts = _amounts(scaling.cpus_per_worker, scaling.gpus_per_worker, with_gpus)
    kinds = [f"accelerator type {scaling.accelerator_type}"] if scaling.accelerator_type else []
    kinds += [f"label {name}={value}" for name, value in scaling.labels.items()]
    return f"{amounts} on a node with {' and '.join(kinds)}" if kinds else amounts


def _what_there_is(scaling: Scaling, nodes: Sequence[Node]) -> str:
    with_gpus = scaling.gpus_per_worker > 0
    kinds = Counter(_amounts(cpus, gpus, with_gpus) for cpus, gpus in _resources(nodes))
    counted = [f"{n} {'node' if n == 1 else 'nodes'} with {kind}" for kind, n in kinds.items()]
    return f"the cluster has {', '.join(counted) or 'no node with CPUs'}"


def _amounts(cpus: float, gpus: float, with_gpus: bool) -> str:
    text = _amount(cpus, "CPU")
    return f"{text} and {_amount(gpus, 'GPU')}" if with_gpus else text


def _amount(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"
