"""A checkpoint brings model, optimiser and sparsifier to where they were."""

import pytest
import torch
from made_plans import small_net
from torch.optim import SGD

from rayprune.config.sparsify import RigL
from rayprune.pruning.masks import prunable
from rayprune.snapshot import SnapshotError
from rayprune.sparsifiers import make_sparsifier
from rayprune.training.checkpoint import (
    EpochState,
    encode_checkpoint,
    epochs_done_of,
    momentum_of,
    restore_checkpoint_,
    set_momentum_,
)

STATE = EpochState(epochs_done=3, seconds=1.5, pruned={"accuracy": 0.25})


def made(seed):
    """A model in channels_last with a sparsifier that has a state, and its optimiser."""
    torch.manual_seed(seed)
    model = small_net(10, 3).to(memory_format=torch.channels_last)
    names = prunable(model)
    masks = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}
    numbers = dict(sparsity=0.5, num_steps=100, weight_decay=0.0)
    sparsifier = make_sparsifier(RigL(interval=0.03), model, masks, seed=seed, **numbers)
    return model, SGD(sparsifier.parameter_groups(), lr=0.1, momentum=0.9), sparsifier


def train(model, optimizer, sparsifier, *, first=0, steps=5):
    for step in range(first, first + steps):
        images = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images.to(memory_format=torch.channels_last)).square().mean().backward()
        sparsifier.after_gradients(step)
        optimizer.step()
        sparsifier.after_step(step, optimizer)


def tensors_of(model, optimizer, sparsifier):
    return {
        **model.state_dict(),
        **{f"momentum {n}": m for n, m in momentum_of(model, optimizer).items()},
        **{f"sparsifier {n}": m for n, m in sparsifier.state().items()},
    }


def assert_same(one, other):
    a, b = tensors_of(*one), tensors_of(*other)
    assert list(a) == list(b)
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_what_goes_on_from_a_checkpoint_is_what_was_saved():
    saved, restored = made(0), made(1)
    train(*saved)
    content = encode_checkpoint(STATE, *saved)
    train(*restored, steps=2)
    before = tensors_of(*saved)
    assert any(not torch.equal(before[name], t) for name, t in tensors_of(*restored).items())
    assert restore_checkpoint_(content, *restored) == STATE
    assert_same(saved, restored)
    train(*saved, first=5)
    train(*restored, first=5)
    assert_same(saved, restored)
    assert epochs_done_of(content) == 3


def test_restored_momentum_is_laid_out_as_its_parameter():
    """The fused step would mix up a weight in channels_last and a momentum that is not."""
    saved, restored = made(0), made(1)
    train(*saved)
    restore_checkpoint_(encode_checkpoint(STATE, *saved), *restored)
    model, optimizer, _ = restored
    momentum, parameters = momentum_of(model, optimizer), dict(model.named_parameters())
    assert momentum.keys() == parameters.keys()
    assert all(m.stride() == parameters[name].stride() for name, m in momentum.items())
    assert parameters["3.weight"].is_contiguous(memory_format=torch.channels_last)


def test_an_optimiser_that_has_not_stepped_has_no_momentum():
    model, optimizer, sparsifier = made(0)
    assert momentum_of(model, optimizer) == {}
    content = encode_checkpoint(EpochState(), model, optimizer, sparsifier)
    fresh = made(1)
    assert restore_checkpoint_(content, *fresh) == EpochState()
    assert momentum_of(*fresh[:2]) == {}


def test_momentum_that_was_set_is_a_copy():
    model, optimizer, sparsifier = made(0)
    momentum = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    set_momentum_(model, optimizer, momentum)
    train(model, optimizer, sparsifier)
    assert all((tensor == 1).all() for tensor in momentum.values())


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: b"",
        lambda c: c[:100],
        lambda c: c[:-1],
        lambda c: c[:5000] + bytes([c[5000] ^ 1]) + c[5001:],
        lambda c: bytes([c[0] ^ 1]) + c[1:],
    ],
    ids=["empty", "cut off", "a byte short", "a bit of a weight", "a bit of the checksum"],
)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(damage):
    saved, other = made(0), made(1)
    content = damage(encode_checkpoint(STATE, *saved))
    before = {name: tensor.clone() for name, tensor in tensors_of(*other).items()}
    with pytest.raises(SnapshotError):
        epochs_done_of(content)
    with pytest.raises(SnapshotError):
        restore_checkpoint_(content, *other)
    assert all(torch.equal(before[name], t) for name, t in tensors_of(*other).items())
