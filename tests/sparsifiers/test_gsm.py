import torch
from stepping import ByHand

from rayprune.config.sparsify import Gsm


def test_only_the_most_important_half_gets_its_gradient():
    # |w g| = 2, .2, .5, 1.5: the first and the last weight learn, all decay.
    case = ByHand([1.0, -2.0, 0.5, 3.0])
    training = case.begin(Gsm(momentum=None), lr=0.1, weight_decay=0.5)

    training.step(0, case.loss([2.0, 0.1, -1.0, 0.5]))

    expected = torch.tensor([1 - 0.1 * (2 + 0.5), -2 + 0.1, 0.5 - 0.025, 3 - 0.1 * (0.5 + 1.5)])
    torch.testing.assert_close(case.layer.weight[0], expected)


def test_momentum_and_decay_of_its_own_for_prunable_weights_alone():
    case = ByHand([1.0, 2.0])
    case.model.append(torch.nn.BatchNorm1d(1))
    training = case.begin(Gsm(momentum=0.99, weight_decay=0.03), weight_decay=0.5, momentum=0.9)

    weights, others = training.optimizer.param_groups

    assert weights["params"] == [case.layer.weight]
    assert (weights["momentum"], weights["weight_decay"]) == (0.99, 0.03)
    assert (others["momentum"], others["weight_decay"]) == (0.9, 0.5)


def test_no_nesterov_for_prunable_weights():
    case = ByHand([1.0, 2.0])
    case.model.append(torch.nn.BatchNorm1d(1))
    groups = case.begin(Gsm()).sparsifier.parameter_groups()
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    assert [group["nesterov"] for group in optimizer.param_groups] == [False, True]
