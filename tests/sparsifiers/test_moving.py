import torch
from stepping import ByHand

from rayprune.config.sparsify import RigL
from rayprune.sparsifiers.moving import replace_connections


def test_the_smallest_is_dropped_and_the_largest_gradient_grown():
    weight = torch.tensor([0.1, -0.5, 0.0, 0.0, 0.3])
    kept = torch.tensor([True, True, False, False, True])
    gradient = torch.tensor([0.0, 9.0, -5.0, 2.0, 9.0])
    new = replace_connections(weight, gradient, kept, 1)
    assert new.tolist() == [False, True, True, False, True]


def test_a_dropped_connection_with_the_largest_gradient_comes_back():
    weight, kept = torch.tensor([0.1, 0.5, 0.0]), torch.tensor([True, True, False])
    assert replace_connections(weight, torch.tensor([3.0, 0, 2]), kept, 1).equal(kept)


def test_a_kept_weight_of_zero_counts_as_kept():
    weight, kept = torch.tensor([0.0, 0.0, 0.5]), torch.tensor([False, True, True])
    new = replace_connections(weight, torch.tensor([1.0, 0.0, 0.0]), kept, 1)
    assert new.tolist() == [True, False, True]


def test_connections_move_after_the_step_and_start_at_zero_without_momentum():
    case = ByHand([4.0, 3.0, 2.0, 1.0])
    options = RigL(interval=0.5, fraction=1.0, end=1.0)
    training = case.begin(options, sparsity=0.5, num_steps=4, lr=0.1, momentum=0.5)
    kept = training.sparsifier.masks["0.weight"]
    with torch.no_grad():
        kept.copy_(torch.tensor([[True, True, False, False]]))
        case.layer.weight.copy_(torch.tensor([[4.0, 3.0, 0.0, 0.0]]))

    def momentum() -> list[list[float]]:
        return training.optimizer.state[case.layer.weight]["momentum_buffer"].tolist()

    training.step(0, case.loss([1.0, 1.0, 9.0, 9.0]))
    training.step(1, case.loss([1.0, 1.0, 9.0, 9.0]))
    assert momentum() == [[1.5, 1.5, 0, 0]]

    training.step(2, case.loss([0.0, 10.0, 9.0, 11.0]))  # half of two connections moves

    # 4 - .1 - .15 - .075 stays; 2.75 - 1.075 goes, though its gradient is the second largest.
    assert kept.tolist() == [[True, False, False, True]]
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.675, 0, 0, 0]))
    assert momentum()[0][0] == 0.75
    assert momentum()[0][3] == 0

    training.step(3, case.loss([0.0, 0.0, 9.0, 1.0]))
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.675 - 0.0375, 0, 0, -0.1]))
