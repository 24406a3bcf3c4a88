import pytest
import torch
from stepping import ByHand

from rayprune.config.sparsify import Cs


def test_soft_mask_and_the_gradients_of_weight_and_mask_parameter():
    # m_0 = 0: at beta = 1 the forward weight is w sigma(0) / sigma(0) = w.
    case = ByHand([2.0, -1.0])
    training = case.begin(Cs(mask_init=0.0, penalty=0.4), num_steps=3, lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([2.0, -1.0]))

    training.step(0, case.loss([1.0, 3.0]))

    # dL/dm = g w sigma'(0) / sigma(0) + .4 sigma'(0) = g w / 2 + .1; m has no weight decay.
    m = training.sparsifier.layers["0.weight"].m
    torch.testing.assert_close(m[0], torch.tensor([-0.1 * (1 + 0.1), -0.1 * (-1.5 + 0.1)]))
    trained = torch.tensor([2 - 0.1 * (1 + 1), -1 - 0.1 * (3 - 0.5)])
    torch.testing.assert_close(training.sparsifier.weights["0.weight"][0], trained.detach())

    masks = training.sparsifier.finish()

    torch.testing.assert_close(case.layer.weight[0], torch.tensor([0, 2 * -1.25]))
    assert masks["0.weight"].tolist() == [[False, True]]


def test_beta_rises_geometrically_from_one_to_its_end():
    case = ByHand([2.0, -1.0])
    training = case.begin(Cs(beta_final=16.0), num_steps=5)
    seen = []
    for step in range(5):
        training.step(step, case.loss([0.0, 0.0]))
        seen.append(training.sparsifier.beta.item())
    assert seen == pytest.approx([1, 2, 4, 8, 16])


def test_penalty_is_the_sum_of_soft_masks():
    training = ByHand([2.0, -1.0, 3.0]).begin(Cs(mask_init=0.5, penalty=0.1), num_steps=5)
    sigma = 1 / (1 + torch.tensor(-0.5).exp())
    torch.testing.assert_close(training.sparsifier.penalty(), 0.1 * 3 * sigma)
