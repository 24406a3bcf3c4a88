import torch
from stepping import ByHand

from rayprune.config.sparsify import Dnw


def test_the_largest_half_in_the_forward_pass_and_the_gradient_for_all():
    case = ByHand([4.0, -3.0, 1.0, 0.5])
    training = case.begin(Dnw(), lr=0.1)

    training.step(0, lambda: 0.5 * case.model(torch.ones(1, 4)).square().sum())  # output 4 - 3

    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.9, -3.1, 0.9, 0.4]))


def test_a_connection_comes_into_use_when_it_outgrows_another():
    case = ByHand([2.0, 1.0])
    training = case.begin(Dnw(), lr=1.0)
    training.step(0, case.loss([0.0, -1.5]))
    with training.sparsifier.shipped() as masks:
        assert masks["0.weight"].tolist() == [[False, True]]
        torch.testing.assert_close(case.model(torch.ones(1, 2)), torch.tensor([[2.5]]))


def test_layers_of_small_weights_are_not_emptied():
    case = ByHand([[1.0, 2.0], [0.01, 0.02]])
    case.model.append(torch.nn.Linear(2, 2, bias=False))
    torch.nn.init.constant_(case.model[1].weight, 5.0)
    with case.begin(Dnw()).sparsifier.shipped() as masks:
        assert [int(mask.sum()) for mask in masks.values()] == [2, 2]
