"""What sharing, packing and masking cost or save; each a ratio made in one run.

pytest -m slow -s tests/benchmarks
"""

import os
import time

import pytest
import torch
from torch.optim import SGD

from rayprune.config import Prune
from rayprune.config.load import load_study, shipped_studies
from rayprune.models import build_model
from rayprune.plan import Stage, count_epochs
from rayprune.pruning.masks import apply_
from rayprune.snapshot import Snapshot, decode, encode, prune
from rayprune.training.network import initial_snapshot
from rayprune.trials import make_trials

pytestmark = pytest.mark.slow


def pruned_snapshot(name, sparsity):
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, in_channels=3)
    stage = Stage(cycle=1, epochs=0, sparsity=sparsity, schedule="none", key="k")
    dense = initial_snapshot(model)
    masks = prune(dense, stage, Prune(sparsity=sparsity))
    apply_(model, masks)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return model, Snapshot(weights, masks)


@pytest.mark.parametrize("name", shipped_studies())
def test_epochs_shared(name):
    epochs = count_epochs([trial.plan for trial in make_trials(load_study(name))])
    assert 0 < epochs.unique <= epochs.naive
    print(
        f"\n{name}: {epochs.unique} epochs for {epochs.naive}, {epochs.naive / epochs.unique:.1f}x"
    )


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.99])
def test_snapshot_size(sparsity):
    _, snapshot = pruned_snapshot("resnet18_cifar", sparsity)
    dense = sum(weight.nbytes for weight in snapshot.weights.values())
    content = encode(snapshot)
    decoded = decode(content).weights
    assert all(torch.equal(decoded[name], weight) for name, weight in snapshot.weights.items())
    print(f"\nResNet-18 at {sparsity}: {dense / len(content):.1f} times smaller than dense")


def test_mask_on_a_step():
    """Interleaved steps of a ResNet-20 with and without the fused multiply; minimum of each."""
    model, snapshot = pruned_snapshot("resnet20", 0.9)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    parameters = dict(model.named_parameters())
    masked = {name: parameters[name] for name in snapshot.masks}
    images = torch.randn(32, 3, 32, 32)
    step_s, mask_s = [], []
    for _ in range(15):
        started = time.process_time()
        model(images).square().mean().backward()
        optimizer.step()
        stepped = time.process_time()
        apply_(masked, snapshot.masks)
        step_s.append(stepped - started)
        mask_s.append(time.process_time() - stepped)
    print(
        f"\nmask on a step of ResNet-20, batch 32: {min(mask_s) / min(step_s):.3%} of the step; "
        f"load {os.getloadavg()[0]:.1f}"
    )
