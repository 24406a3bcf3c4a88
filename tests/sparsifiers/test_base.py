"""What holds for every method at every step; tests/training/test_sparsified.py runs whole plans."""

import pytest
import torch
from stepping import ByHand, Training, begin
from torch import nn

from rayprune.config.sparsify import (
    AcDc,
    Cs,
    Dnw,
    Dpf,
    Dst,
    Gmp,
    GraNet,
    Gsm,
    Lc,
    RigL,
    Str,
)
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.sparsifiers import METHODS

# Intervals that do not end with the epochs of `EPOCHS` x `STEPS`: what is kept must be stored.
OPTIONS = {
    "gmp": Gmp(interval=0.2),
    "gmp, no recovery": Gmp(interval=0.2, recover=False),
    "gmp, erk": Gmp(interval=0.2, allocation="erk"),
    "gsm": Gsm(momentum=0.9, weight_decay=0.05),
    "lc": Lc(mu=0.1, growth=10.0, interval=5 / 32),
    "dpf": Dpf(interval=5 / 32),
    "dnw": Dnw(),
    "str": Str(theta_init=-3.0),
    "cs": Cs(mask_init=0.0, beta_final=500.0),
    "cs, in rounds": Cs(mask_init=0.01, beta_final=500.0, rounds=3, rewind=0.3),
    "dst": Dst(penalty=0.01),
    "rigl": RigL(interval=3 / 32),
    "acdc": AcDc(),
    "acdc, sparse from the start": AcDc(warmup=0.0, phase=0.2, allocation="erk"),
    "granet": GraNet(interval=3 / 32),
}
WITH_GOAL = [name for name, options in OPTIONS.items() if hasattr(options, "sparsity")]
STEPS, EPOCHS = 8, 4

every_method = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def made_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 4),
    ).to(memory_format=torch.channels_last)


def made_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS * EPOCHS, 16, 2, 8, 8, generator=generator)
    classes = torch.randint(4, (STEPS * EPOCHS, 16), generator=generator)
    return list(zip(images, classes, strict=True))


def begin_made(options) -> Training:
    return begin(
        options,
        made_model(),
        sparsity=0.8,
        num_steps=STEPS * EPOCHS,
        lr=0.05,
        weight_decay=5e-3,
        momentum=0.9,
    )


@torch.no_grad()
def outputs(model: nn.Module) -> torch.Tensor:
    model.eval()
    result = model(made_batches()[0][0])
    model.train()
    return result


def test_every_method_is_tested():
    assert {options.method for options in OPTIONS.values()} == METHODS.keys()


@every_method
def test_finish_leaves_plain_keys_and_zeros(options):
    training = begin_made(options)
    training.classify(made_batches())

    masks = training.sparsifier.finish()

    assert list(training.model.state_dict()) == list(made_model().state_dict())
    assert [type(module) for module in training.model] == [type(module) for module in made_model()]
    assert list(masks) == ["0.weight", "3.weight", "7.weight"]
    for name, mask in masks.items():
        weight = training.model.get_parameter(name)
        removed = weight[~mask]
        assert mask.dtype == torch.bool
        assert weight.requires_grad
        assert not removed.any()
        assert not removed.signbit().any()
        assert weight.stride() == made_model().get_parameter(name).stride()
    assert 0 < num_pruned(masks) < num_weights(masks)


@pytest.mark.parametrize("name", WITH_GOAL)
def test_the_goal_is_met_exactly_whenever_training_ends(name):
    training = begin_made(OPTIONS[name])
    for step, batch in enumerate(made_batches()):
        training.classify([batch], step)
        with training.sparsifier.shipped() as masks:
            assert num_pruned(masks) == round(0.8 * num_weights(masks))
    assert training.sparsifier.finish().keys() == masks.keys()


@every_method
@pytest.mark.parametrize("steps", [3, STEPS * EPOCHS])
def test_shipped_computes_what_finish_leaves_and_can_be_left(options, steps):
    training, other = begin_made(options), begin_made(options)
    training.classify(made_batches()[:steps])
    other.classify(made_batches()[:steps])
    before = outputs(training.model)

    with training.sparsifier.shipped() as masks:
        shipped = outputs(training.model)

    assert outputs(training.model).equal(before)
    assert all(masks[name].equal(mask) for name, mask in training.sparsifier.finish().items())
    assert outputs(training.model).equal(shipped)
    with pytest.raises(KeyError), other.sparsifier.shipped():
        raise KeyError
    assert outputs(other.model).equal(before)


@every_method
def test_the_loop_may_hold_on_to_the_masks(options):
    training = begin_made(options)
    held = {name: (mask, mask.data_ptr()) for name, mask in training.sparsifier.masks.items()}
    training.classify(made_batches())
    for name, mask in training.sparsifier.masks.items():
        assert held[name] == (mask, mask.data_ptr())
        assert mask.stride() == training.model.get_parameter(name).stride()


@every_method
def test_weight_decay_is_applied_once(options):
    own = {"weight_decay", "mu"} & options.model_fields_set
    options = options.model_copy(update=dict.fromkeys(own))
    case = ByHand([[1.0, 2.0, 3.0, 4.0]] * 3)
    training = case.begin(options, num_steps=400, lr=0.1, weight_decay=0.5)
    trained = training.sparsifier.weights["0.weight"]
    before = trained.detach().clone()

    training.step(1, case.loss([[0.0] * 4] * 3))

    decays = before < 3 if options.method == "lc" else torch.ones_like(before, dtype=torch.bool)
    torch.testing.assert_close(trained.detach(), torch.where(decays, 0.95 * before, before))


@every_method
def test_decay_of_weights_alone_leaves_out_biases_and_normalisation(options):
    sparsifier = begin_made(options).sparsifier
    decayed = {
        id(parameter): group["weight_decay"]
        for group in sparsifier.parameter_groups(decay="weights")
        for parameter in group["params"]
    }
    parameters = list(sparsifier.model.parameters())
    assert decayed.keys() == {id(parameter) for parameter in parameters}
    norm = sparsifier.model[1]
    assert decayed[id(norm.weight)] == decayed[id(norm.bias)] == 0


@every_method
def test_the_state_of_another_method_is_refused(options):
    other = RigL() if options.method in ("gsm", "dnw", "str", "cs", "dst") else Str()
    with pytest.raises(ValueError, match=f"must be of method '{options.method}'"):
        begin_made(options).sparsifier.load_state(begin_made(other).sparsifier.state())


@pytest.mark.parametrize("recover", [True, False])
def test_uniform_plus_spares_no_other_layer_where_the_first_is_ignored(recover):
    model = made_model()
    rest = {n: torch.ones_like(model.get_parameter(n)) > 0 for n in ("3.weight", "7.weight")}
    options = Gmp(interval=0.5, recover=recover, allocation="uniform_plus")
    sparsifier = METHODS["gmp"](options, model, rest, sparsity=0.5, num_steps=STEPS)
    masks = sparsifier.final_masks()
    assert [num_pruned({name: mask}) for name, mask in masks.items()] == [81, 192]
