import pytest
import torch
from pydantic import ValidationError
from stepping import ByHand

from rayprune.config.optim import Optim
from rayprune.config.sparsify import Gmp
from rayprune.pruning.masks import num_pruned
from rayprune.sparsifiers.gmp import target_sparsities


def test_sequence_of_the_paper_set_up():
    targets = target_sparsities(0.9, num_steps=200, interval=20)

    assert list(targets) == [20, 40, 60, 80, 100, 120, 140, 160, 180]
    assert list(targets.values()) == pytest.approx(
        [0.2679, 0.4765, 0.6333, 0.7457, 0.821, 0.8667, 0.8901, 0.8988, 0.9], abs=5e-5
    )


def test_the_last_prune_step_reaches_the_goal_and_training_goes_on_after_it():
    for num_steps in range(2, 60):
        for interval in range(1, num_steps // 2 + 1):
            targets = target_sparsities(0.95, num_steps=num_steps, interval=interval)
            assert max(targets) <= num_steps - interval
            assert targets[max(targets)] == 0.95
            assert sorted(targets.values()) == list(targets.values())


def test_half_of_any_run_leaves_a_prune_step():
    for num_steps in (2, *range(4, 20)):
        training = ByHand([1.0, 2.0]).begin(Gmp(interval=0.5), num_steps=num_steps)
        assert list(training.sparsifier.targets) == [num_steps // 2]
    assert ByHand([1.0, 2.0]).begin(Gmp(), num_steps=1).sparsifier.targets == {}


def test_an_interval_over_half_of_the_run_is_refused():
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        Gmp(interval=0.6)


# Four steps, goal .5: targets .352, .481, .5, so 1, 2 and 2 of 4 weights are masked.
STEPS = ([0.0, 0, 0, 0], [0.0, 0, 1.5, 9], [0.0, 2.8, 9, 9], [0.5, 0, 9, 0])


@pytest.mark.parametrize(
    ("recover", "after", "shipped"),
    [
        (
            True,
            ([4, 3, 2, 1], [4, 3, 0.5, 1], [4, 0.2, 0.5, 1], [3.5, 0.2, 0.5, 1]),
            [3.5, 0, 0, 1],
        ),
        (False, ([4, 3, 2, 0], [4, 3, 0, 0], [4, 0.2, 0, 0], [3.5, 0.2, 0, 0]), [3.5, 0.2, 0, 0]),
    ],
)
def test_masked_weights_get_no_gradient_and_may_recover(recover, after, shipped):
    case = ByHand([4.0, 3.0, 2.0, 1.0])
    training = case.begin(Gmp(interval=0.25, recover=recover), num_steps=4, lr=1.0)
    masked = []
    for step, gradient in enumerate(STEPS):
        training.step(step, case.loss(gradient))
        masked.append(num_pruned(training.sparsifier.kept))
        torch.testing.assert_close(case.layer.weight[0], torch.tensor(after[step]).float())
    assert masked == [1, 2, 2, 2]

    masks = training.sparsifier.finish()

    torch.testing.assert_close(case.layer.weight[0], torch.tensor(shipped))
    assert masks["0.weight"].tolist() == [[value != 0 for value in shipped]]


def test_a_prune_step_stops_the_momentum_of_masked_weights():
    case = ByHand([4.0, 3.0, 2.0, 1.0])
    training = case.begin(Gmp(interval=0.25), num_steps=4, lr=0.01, momentum=0.9)
    for step in range(3):
        training.step(step, case.loss([1.0, 1.0, 1.0, 1.0]))

    momentum = training.optimizer.state[case.layer.weight]["momentum_buffer"]

    torch.testing.assert_close(momentum, torch.tensor([[2.71, 2.71, 0, 0]]))


def test_what_recovers_under_adam_has_the_scale_of_what_was_never_masked():
    """Its own has faded while it had no gradients."""
    case = ByHand([4.0, 3.0, 0.6, 0.5])
    optim = Optim(name="adam", lr=0.5, betas=(0.9, 0.5))
    training = case.begin(Gmp(interval=0.25), num_steps=8, optim=optim)
    squares = []
    for step in range(6):  # after two steps the last one is masked; then the third shrinks below it
        training.step(step, case.loss([-1.0, -2.0, 0.0 if step < 2 else 1.0, 0.0]))
        squares.append(training.optimizer.state[case.layer.weight]["exp_avg_sq"][0].clone())
    kept = training.sparsifier.kept["0.weight"][0].tolist()
    assert kept == [True, True, False, False]
    assert squares[1][3] == squares[1][:3].mean()
    assert squares[3][3] == squares[3][2] == squares[3][:2].mean()
    assert squares[5][3] == squares[5][2] == squares[5][:2].mean()


def test_the_default_interval_is_a_tenth_of_the_run():
    training = ByHand([1.0, 2.0]).begin(Gmp(), num_steps=40)
    assert list(training.sparsifier.targets) == list(range(4, 37, 4))
