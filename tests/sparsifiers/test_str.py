import math

import torch
from stepping import ByHand

from rayprune.config.sparsify import Str


def test_soft_threshold_and_the_gradient_of_theta():
    # theta = ln 3: threshold .75, its slope .75 * .25 = .1875.
    case = ByHand([2.0, -1.0, 0.3, -0.2])
    training = case.begin(Str(theta_init=math.log(3), theta_decay=0.4), lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([1.25, -0.25, 0, 0]))

    training.step(0, case.loss([1.0, 2.0, 3.0, 4.0]))

    # Moving the threshold up changes the kept weights by -sign(w): dL/dtheta = (-1 + 2) .1875.
    theta = math.log(3) - 0.1 * (0.1875 + 0.4 * math.log(3))
    trained = [2 - 0.1 * (1 + 1), -1 - 0.1 * (2 - 0.5), 0.3 - 0.1 * 0.15, -0.2 + 0.1 * 0.1]
    torch.testing.assert_close(training.sparsifier.layers["0.weight"].theta.item(), theta)
    torch.testing.assert_close(training.sparsifier.weights["0.weight"][0], torch.tensor(trained))

    masks = training.sparsifier.finish()

    threshold = 1 / (1 + math.exp(-theta))
    shipped = torch.tensor([1.8 - threshold, -(1.15 - threshold), 0, 0])
    torch.testing.assert_close(case.layer.weight[0], shipped)
    assert masks["0.weight"].tolist() == [[True, True, False, False]]


def test_decay_alone_pulls_the_threshold_up():
    case = ByHand([2.0, -1.0])
    training = case.begin(Str(theta_init=-8.0), lr=0.1, weight_decay=0.5)
    training.step(0, case.loss([0.0, 0.0]))
    torch.testing.assert_close(training.sparsifier.layers["0.weight"].theta.item(), -8 * 0.95)
