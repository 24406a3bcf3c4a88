"""A checkpoint brings model, optimiser and sparsifier to where they were."""

import pytest
import torch
from made_plans import small_net

from rayprune.config.optim import Optim
from rayprune.config.sparsify import RigL
from rayprune.pruning.masks import prunable
from rayprune.snapshot import SnapshotError
from rayprune.sparsifiers import make_sparsifier
from rayprune.training.checkpoint import (
    EpochState,
    encode_checkpoint,
    epochs_done_of,
    restore_checkpoint_,
    set_training_state_,
    training_state,
)
from rayprune.training.ema import start_average
from rayprune.training.optimizer import make_optimizer

STATE = EpochState(epochs_done=3, seconds=1.5, pruned={"accuracy": 0.25})


OPTIMS = {
    "sgd": Optim(momentum=0.9),
    "adam": Optim(name="adam", betas=(0.8, 0.99)),
    "adamw": Optim(name="adamw", weight_decay=0.1),
    "averaged": Optim(ema_decay=0.9),
}

every_optimiser = pytest.mark.parametrize("optim", OPTIMS.values(), ids=OPTIMS)


def made(seed, optim=OPTIMS["sgd"]):
    """A model in channels_last with a sparsifier that has a state, its optimiser and average."""
    torch.manual_seed(seed)
    model = small_net(10, 3).to(memory_format=torch.channels_last)
    names = prunable(model)
    masks = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}
    numbers = dict(sparsity=0.5, num_steps=100, weight_decay=optim.weight_decay)
    sparsifier = make_sparsifier(RigL(interval=0.03), model, masks, seed=seed, **numbers)
    optimizer = make_optimizer(optim, sparsifier.parameter_groups())
    average = start_average(model, optim.ema_decay) if optim.ema_decay else None
    return model, optimizer, sparsifier, average


def train(model, optimizer, sparsifier, average, *, first=0, steps=5):
    for step in range(first, first + steps):
        images = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images.to(memory_format=torch.channels_last)).square().mean().backward()
        sparsifier.after_gradients(step)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        if average is not None:
            average.update_(step)


def tensors_of(model, optimizer, sparsifier, average):
    return {
        **model.state_dict(),
        **{f"training {n}": t for n, t in training_state(model, optimizer, average).items()},
        **{f"sparsifier {n}": m for n, m in sparsifier.state().items()},
    }


def assert_same(one, other):
    a, b = tensors_of(*one), tensors_of(*other)
    assert list(a) == list(b)
    assert not [name for name in a if not torch.equal(a[name], b[name])]


@every_optimiser
def test_what_goes_on_from_a_checkpoint_is_what_was_saved(optim):
    saved, restored = made(0, optim), made(1, optim)
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


@every_optimiser
def test_what_is_restored_is_laid_out_as_its_parameter(optim):
    """The fused step would mix up a weight in channels_last and a momentum that is not."""
    saved, restored = made(0, optim), made(1, optim)
    train(*saved)
    restore_checkpoint_(encode_checkpoint(STATE, *saved), *restored)
    model, optimizer, _, average = restored
    kinds = ["momentum_buffer"] if optim.name == "sgd" else ["exp_avg", "exp_avg_sq", "step"]
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        assert list(state) == kinds
        assert all(state[k].stride() == parameter.stride() for k in kinds if k != "step")
        assert "step" not in state or state["step"].device == parameter.device
        assert average is None or average.tensors[name].stride() == parameter.stride()
    assert model.get_parameter("3.weight").is_contiguous(memory_format=torch.channels_last)


@every_optimiser
def test_an_optimiser_that_has_not_stepped_remembers_nothing(optim):
    model, optimizer, sparsifier, _ = made(0, optim)
    assert training_state(model, optimizer, None) == {}
    content = encode_checkpoint(EpochState(), model, optimizer, sparsifier)
    model, optimizer, sparsifier, average = made(1, optim)
    train(model, optimizer, sparsifier, average)
    assert restore_checkpoint_(content, model, optimizer, sparsifier) == EpochState()
    assert training_state(model, optimizer, None) == {}, "and forgets what it had"


def test_what_was_set_is_a_copy():
    model, optimizer, sparsifier, average = made(0)
    state = {f"momentum_buffer:{n}": torch.ones_like(p) for n, p in model.named_parameters()}
    set_training_state_(model, optimizer, average, state)
    train(model, optimizer, sparsifier, average)
    assert all((tensor == 1).all() for tensor in state.values())


def test_a_checkpoint_without_the_average_that_training_goes_on_with_is_refused():
    content = encode_checkpoint(STATE, *made(0))
    with pytest.raises(ValueError, match="average must be of this model's weights"):
        restore_checkpoint_(content, *made(0, OPTIMS["averaged"]))


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
