import torch
from stepping import ByHand

from rayprune.config.sparsify import Lc


def test_only_the_smallest_half_decays():
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Lc(), lr=0.1, weight_decay=0.5)

    training.step(0, case.loss([2.0, 0.1, -1.0, 0.5]))

    expected = [1 - 0.1 * (2 + 0.5), -2 - 0.1 * 0.1, 0.5 - 0.1 * (-1 + 0.25), 3 - 0.1 * 0.5]
    torch.testing.assert_close(case.layer.weight[0], torch.tensor(expected))


def test_its_own_decay_does_not_change_that_of_other_parameters():
    case = ByHand([1.0, 2.0])
    case.model.append(torch.nn.BatchNorm1d(1))
    training = case.begin(Lc(weight_decay=0.25), lr=0.1, weight_decay=0.5)

    training.step(0, lambda: case.loss([0.0, 0.0])() + 0 * case.model[1].weight.sum())

    torch.testing.assert_close(case.layer.weight[0], torch.tensor([1 - 0.1 * 0.25, 2]))
    torch.testing.assert_close(case.model[1].weight, torch.tensor([1 - 0.1 * 0.5]))
