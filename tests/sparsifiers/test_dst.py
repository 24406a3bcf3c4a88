import math

import torch
from stepping import ByHand

from rayprune.config.sparsify import Dst
from rayprune.sparsifiers.dst import Step


def test_surrogate_gradient():
    x = torch.tensor([0.0, 0.2, -0.2, 0.4, 0.7, -1.0, 1.1, -3.0], requires_grad=True)
    step = Step.apply(x)
    step.sum().backward()
    assert step.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]
    torch.testing.assert_close(x.grad, torch.tensor([2.0, 1.2, 1.2, 0.4, 0.4, 0.4, 0, 0]))


def test_thresholds_of_two_units_and_their_gradients():
    case = ByHand([[0.5, -0.1], [1.0, 0.3]])
    training = case.begin(Dst(penalty=0.5), lr=0.1, weight_decay=0.0)
    layer = training.sparsifier.layers["0.weight"]
    layer.threshold.data = torch.tensor([0.2, 0.0])
    torch.testing.assert_close(case.layer.weight, torch.tensor([[0.5, 0], [1, 0.3]]))

    training.step(0, case.loss([[1.0, 1.0], [2.0, 2.0]]))

    # |w| - t = .3, -.1, 1, .3: slopes .8, 1.6, .4, .8. dL/dw = g (S + |w| S'), dL/dt = -g w S'.
    gradient = [[1 + 0.5 * 0.8, 0.1 * 1.6], [2 * (1 + 0.4), 2 * (1 + 0.3 * 0.8)]]
    trained = torch.tensor([[0.5, -0.1], [1.0, 0.3]]) - 0.1 * torch.tensor(gradient)
    torch.testing.assert_close(training.sparsifier.weights["0.weight"].detach(), trained)
    first = -(0.5 * 0.8 - 0.1 * 1.6) - 0.5 * math.exp(-0.2)
    second = -2 * (1 * 0.4 + 0.3 * 0.8) - 0.5
    thresholds = torch.tensor([0.2 - 0.1 * first, -0.1 * second])
    torch.testing.assert_close(layer.threshold.detach(), thresholds)

    masks = training.sparsifier.finish()

    assert masks["0.weight"].tolist() == [[True, False], [True, False]]
    torch.testing.assert_close(case.layer.weight[:, 0], trained[:, 0])
    assert case.layer.weight[:, 1].tolist() == [0, 0]


def test_thresholds_are_reset_in_a_layer_that_keeps_one_percent():
    case = ByHand([[2.0] * 2 + [1.0] * 98, [1.0] * 100])
    training = case.begin(Dst())
    layer = training.sparsifier.layers["0.weight"]
    layer.threshold.data = torch.tensor([1.5, 0.5])
    training.sparsifier.before_forward(0)
    assert layer.threshold.tolist() == [1.5, 0.5]  # 102 of 200 are kept

    layer.threshold.data = torch.tensor([1.5, 1.5])
    training.sparsifier.before_forward(0)
    assert layer.threshold.tolist() == [0, 0]  # it was 2 of 200


def test_thresholds_have_no_weight_decay():
    case = ByHand([[0.5, 0.7]])
    training = case.begin(Dst(penalty=0.0), weight_decay=0.5)
    layer = training.sparsifier.layers["0.weight"]
    layer.threshold.data = torch.tensor([0.1])
    training.step(0, case.loss([[0.0, 0.0]]))
    torch.testing.assert_close(layer.threshold.item(), 0.1)
