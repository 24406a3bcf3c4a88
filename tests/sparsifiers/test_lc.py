import pytest
import torch
from stepping import ByHand

from rayprune.config.optim import Optim
from rayprune.config.sparsify import Lc


def test_only_the_smallest_half_decays():
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Lc(interval=0.125), lr=0.1, weight_decay=0.5)

    training.step(0, case.loss([2.0, 0.1, -1.0, 0.5]))

    expected = [1 - 0.1 * (2 + 0.5), -2 - 0.1 * 0.1, 0.5 - 0.1 * (-1 + 0.25), 3 - 0.1 * 0.5]
    torch.testing.assert_close(case.layer.weight[0], torch.tensor(expected))


def test_its_own_decay_does_not_change_that_of_other_parameters():
    case = ByHand([1.0, 2.0])
    case.model.append(torch.nn.BatchNorm1d(1))
    training = case.begin(Lc(mu=0.25), lr=0.1, weight_decay=0.5)

    training.step(0, lambda: case.loss([0.0, 0.0])() + 0 * case.model[1].weight.sum())

    torch.testing.assert_close(case.layer.weight[0], torch.tensor([1 - 0.1 * 0.25, 2]))
    torch.testing.assert_close(case.model[1].weight, torch.tensor([1 - 0.1 * 0.5]))


def test_the_pull_grows_geometrically_from_one_choice_to_the_next():
    options = Lc(mu=0.1, growth=8.0, interval=0.25)
    sparsifier = ByHand([1.0, 2.0]).begin(options, num_steps=8).sparsifier
    mus = [sparsifier.mu(step) for step in range(8)]
    assert mus == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8, 0.8])


def test_the_largest_are_chosen_anew_at_the_next_interval_only():
    case = ByHand([1.0, 2.0])
    training = case.begin(Lc(mu=0.5, growth=1.0, interval=0.25), num_steps=8, lr=0.1)
    training.step(0, case.loss([-20.0, 0.0]))  # now 2.95 (1 + 2 - .05) and 2
    training.step(1, case.loss([0.0, 0.0]))  # still the first one decays
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([2.95 * 0.95, 2.0]))
    training.step(2, case.loss([0.0, 0.0]))
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([2.95 * 0.95, 1.9]))


def test_beside_the_gradient_the_pull_has_its_own_strength():
    """AdamW would turn it into a step of the learning rate if it were in the gradient."""
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Lc(mu=0.5), optim=Optim(name="adamw", lr=0.1, weight_decay=0.25))
    training.step(0, case.loss([0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([0.95, -2, 0.475, 3]))


def test_beside_the_gradient_the_strongest_pull_ends_at_zero():
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Lc(mu=50.0), optim=Optim(name="adamw", lr=0.1))
    training.step(0, case.loss([0.0, 0.0, 0.0, 0.0]))
    assert case.layer.weight[0].tolist() == [0, -2, 0, 3]


def test_in_the_gradient_adam_makes_a_step_of_it():
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Lc(mu=0.5), optim=Optim(name="adam", lr=0.1))
    training.step(0, case.loss([0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([0.9, -2, 0.4, 3]))
