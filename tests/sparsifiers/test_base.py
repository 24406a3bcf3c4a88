"""What holds for every method at every step; tests/training/test_sparsified.py runs whole plans."""

import pytest
import torch
from stepping import ByHand, Training, begin
from torch import nn

from rayprune.config.optim import Optim
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
from rayprune.sparsifiers.base import forget_momentum_
from rayprune.training.optimizer import make_optimizer

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


ADAMS = {
    "adam": Optim(name="adam", lr=5e-3, weight_decay=1e-3),
    "adamw": Optim(name="adamw", lr=5e-3, weight_decay=0.1),
}


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


@pytest.mark.parametrize("optim", ADAMS.values(), ids=ADAMS)
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "gsm"])
def test_adam_trains_every_method_to_its_goal(name, optim):
    """All but GSM, a rule for SGD's momentum."""
    training = begin(
        OPTIONS[name], made_model(), sparsity=0.8, num_steps=STEPS * EPOCHS, optim=optim
    )
    for step, batch in enumerate(made_batches()):
        training.classify([batch], step)
        for weight_name, mask in training.sparsifier.masks.items():
            assert not training.sparsifier.weights[weight_name][~mask].any()
    masks = training.sparsifier.finish()
    if name in WITH_GOAL:
        assert num_pruned(masks) == round(0.8 * num_weights(masks))
    assert all(p.isfinite().all() for p in training.model.parameters())
    for weight_name, mask in masks.items():
        assert not training.model.get_parameter(weight_name)[~mask].any()


def adam_of(squares, *, steps=1000):
    """A weight of 4 and Adam's state of it after that many steps."""
    weight = nn.Parameter(torch.zeros(1, 4))
    optimizer = make_optimizer(ADAMS["adam"], [{"params": [weight]}])
    optimizer.state[weight] = {
        "step": torch.tensor(float(steps)),
        "exp_avg": torch.ones(1, 4),
        "exp_avg_sq": torch.tensor([squares]),
    }
    return weight, optimizer


def test_what_is_forgotten_borrows_the_scale_of_the_rest_of_its_layer():
    weight, optimizer = adam_of([4.0, 0.0, 8.0, 5.0])
    masks = {"w": torch.tensor([[True, False, True, False]])}
    forget_momentum_(optimizer, {"w": weight}, masks)
    state = optimizer.state[weight]
    assert state["exp_avg"].tolist() == [[1, 0, 1, 0]]
    assert state["exp_avg_sq"].tolist() == [[4, 6, 8, 6]]
    assert state["step"] == 1000
    forget_momentum_(optimizer, {"w": weight}, {"w": torch.zeros(1, 4, dtype=torch.bool)})
    assert state["exp_avg_sq"].tolist() == [[6, 6, 6, 6]], "of all, where none is left"


def test_what_is_forgotten_as_a_whole_is_as_in_a_fresh_optimiser():
    weight, optimizer = adam_of([4.0, 0.0, 8.0, 5.0])
    forget_momentum_(optimizer, {"w": weight})
    before = weight.detach().clone()
    weight.grad = torch.tensor([[1.0, -2.0, 3.0, 1e-3]])
    optimizer.step()
    lr = ADAMS["adam"].lr
    torch.testing.assert_close(weight - before, lr * torch.tensor([[-1.0, 1, -1, -1]]))


@pytest.mark.parametrize("squares", [[1.0, 0.0, 1.0, 0.0], [100.0, 1e-9, 100.0, 1e-9]])
def test_what_comes_back_moves_no_further_than_its_neighbours(squares):
    """From 0 it would move by up to 6.6 learning rates a step, as its gradients are like theirs."""
    weight, optimizer = adam_of(squares)
    kept = torch.tensor([[True, False, True, False]])
    forget_momentum_(optimizer, {"w": weight}, {"w": kept})
    lr = ADAMS["adam"].lr
    for _ in range(30):
        before = weight.detach().clone()
        weight.grad = torch.full((1, 4), squares[0] ** 0.5)
        optimizer.step()
        assert ((weight - before).abs() <= 1.4 * lr).all()


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


def test_weights_of_other_layers_are_of_the_network_too():
    """uniform_plus knows the last matrix by it, which prune.include may have named."""
    own = nn.ParameterDict({"w": torch.randn(4, 20)})  # a layer of the user's
    model = nn.Sequential(nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False), own)
    masks = {n: torch.ones_like(p) > 0 for n, p in model.named_parameters()}
    options = Gmp(interval=0.5, allocation="uniform_plus")
    sparsifier = METHODS["gmp"](options, model, masks, sparsity=0.9, num_steps=STEPS)
    left = {n: int(mask.sum()) for n, mask in sparsifier.final_masks().items()}
    assert left["2.w"] == 16, "a fifth of the last one stays"
