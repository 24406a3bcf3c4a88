"""The exact global threshold against `torch.nn.utils.prune.global_unstructured`, in CPU time.

    python tests/benchmarks/test_threshold.py 25_500_000

prints the ratio for a ResNet-50's number of weights (20 s, 2 GB of memory). As a slow test it runs
a tenth of that. No time is asserted: only that both find the same threshold.
"""

import os
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from rayprune.pruning.masks import Masks, keep_largest, num_pruned

ROUNDS = 3
Layers = dict[str, nn.Linear]


@pytest.mark.slow
def test_threshold() -> None:
    compare(2_550_000)


def compare(num_weights: int, sparsity: float = 0.9) -> None:
    """Interleaved runs of both on the same Gaussian weights; the minimum of each is printed."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads would count as CPU time
    width = 512 * 9
    layers = {f"{i}": nn.Linear(width, 256) for i in range(max(num_weights // (256 * width), 2))}
    count = sum(layer.weight.numel() for layer in layers.values())
    plain, ours = [], []
    for _ in range(ROUNDS):
        seconds, masks = _timed(_keep_largest, layers, round(sparsity * count))
        ours.append(seconds)
        seconds, expected = _timed(_global_unstructured, layers, round(sparsity * count))
        plain.append(seconds)
        assert num_pruned(masks) == num_pruned(expected)
        assert _largest_pruned(layers, masks) == _largest_pruned(layers, expected)
    torch.set_num_threads(threads)
    print(
        f"\n{count:,} weights, sparsity {sparsity}: global_unstructured {min(plain):.3f} CPU s, "
        f"keep_largest {min(ours):.3f} CPU s, {min(plain) / min(ours):.1f} times less; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def _keep_largest(layers: Layers, amount: int) -> Masks:
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    return keep_largest(scores, amount)


def _global_unstructured(layers: Layers, amount: int) -> Masks:
    parameters = [(layer, "weight") for layer in layers.values()]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=amount)
    return {name: layer.get_buffer("weight_mask").bool() for name, layer in layers.items()}


def _largest_pruned(layers: Layers, masks: Masks) -> float:
    """Which weights go, but for the choice among equal ones, which is free in torch's."""
    return max(
        float(layers[name].weight.detach().abs()[~mask].max()) for name, mask in masks.items()
    )


def _timed(
    function: Callable[[Layers, int], Masks], layers: Layers, amount: int
) -> tuple[float, Masks]:
    start = time.process_time()
    masks = function(layers, amount)
    seconds = time.process_time() - start
    for layer in layers.values():
        if prune.is_pruned(layer):
            weight = layer.get_parameter("weight_orig").detach().clone()
            prune.remove(layer, "weight")
            layer.weight.data = weight
    return seconds, masks


if __name__ == "__main__":
    compare(int(sys.argv[1]) if sys.argv[1:] else 25_500_000)
