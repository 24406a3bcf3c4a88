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

    # dL/dm = g w sigma'(0) / sigma(0) + .4 sigma'(0) / sigma(0) = g w / 2 + .2; m has no decay.
    m = training.sparsifier.layers["0.weight"].m
    torch.testing.assert_close(m[0], torch.tensor([-0.1 * (1 + 0.2), -0.1 * (-1.5 + 0.2)]))
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


def test_penalty_is_the_sum_of_what_weights_are_multiplied_with():
    sparsifier = ByHand([2.0, -1.0]).begin(Cs(mask_init=-0.5, penalty=0.1), num_steps=5).sparsifier
    torch.testing.assert_close(sparsifier.penalty(), torch.tensor(0.1 * 2))
    sparsifier.before_forward(4)  # beta = 200: all masks are closed
    torch.testing.assert_close(sparsifier.penalty(), torch.tensor(0.0))


def begin_rounds(rewind: float | None):
    """Two rounds of four steps, `beta` 1, 2, 4, 8 in each, over a weight and a batch norm."""
    case = ByHand([2.0, -1.0])
    case.model.append(torch.nn.BatchNorm1d(1))
    options = Cs(beta_final=8.0, mask_init=0.5, rounds=2, rewind=rewind, penalty=0.0)
    return case, case.begin(options, num_steps=8, lr=0.1, momentum=0.9)


def train(case, training, steps):
    norm = case.model[1]
    for step in steps:
        training.step(step, lambda: case.loss([1.0, 2.0])() + norm.weight.sum() + norm.bias.sum())


def test_beta_starts_again_in_every_round():
    training = begin_rounds(None)[1]
    assert [training.sparsifier.beta_at(step) for step in range(8)] == pytest.approx(
        [1, 2, 4, 8, 1, 2, 4, 8]
    )
    uneven = ByHand([2.0]).begin(Cs(beta_final=4.0, rounds=3), num_steps=7).sparsifier
    seen = [uneven.beta_at(step) for step in range(7)]  # rounds of 2, 3 and 2 steps
    assert seen == pytest.approx([1, 4, 1, 2, 4, 1, 4])


def test_a_round_starts_from_the_masks_of_the_one_before():
    case, training = begin_rounds(None)
    layer = training.sparsifier.layers["0.weight"]
    train(case, training, range(4))
    with torch.no_grad():
        layer.m.copy_(torch.tensor([[-0.25, 0.125]]))
    weight = training.sparsifier.weights["0.weight"].detach().clone()

    training.sparsifier.before_forward(4)

    assert layer.m.tolist() == [[8 * -0.25, 0.5]]  # 8 * .125 = 1 is more than m_0
    assert training.sparsifier.weights["0.weight"].equal(weight)
    assert training.sparsifier.beta.item() == 1


def test_momentum_of_what_a_new_round_changes_is_forgotten():
    for rewind in (None, 0.5):
        case, training = begin_rounds(rewind)
        train(case, training, range(4))
        for name, parameter in training.model.named_parameters():
            momentum = training.optimizer.state[parameter]["momentum_buffer"]
            assert momentum.any() == (rewind is None and not name.endswith(".0.m")), name


def test_rewinding_takes_all_but_the_masks_back_to_a_point_of_the_first_round():
    case, training = begin_rounds(0.5)
    train(case, training, range(2))
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    train(case, training, range(2, 4))
    assert not any(p.equal(before[name]) for name, p in case.model.named_parameters())

    training.sparsifier.before_forward(4)

    changed = [name for name, p in case.model.named_parameters() if not p.equal(before[name])]
    assert changed == ["0.parametrizations.weight.0.m"]


def test_a_run_of_one_round_has_nothing_to_go_back_to():
    assert ByHand([2.0]).begin(Cs(rewind=0.5)).sparsifier.state() == {}
