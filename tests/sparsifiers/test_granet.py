import pytest
import torch
from stepping import ByHand

from rayprune.config.sparsify import GraNet
from rayprune.pruning.masks import num_pruned


def test_regrown_part_falls_as_a_cosine_to_the_end():
    granet = ByHand([1.0] * 10).begin(GraNet(interval=0.25), num_steps=800).sparsifier
    seen = {step: granet.fraction(step) for step in range(800) if granet.fraction(step)}
    half = (0.5 - 0.005) / 2
    assert seen == pytest.approx(
        {200: 0.005 + half * (1 + 0.5**0.5), 400: 0.005 + half, 600: 0.005 + half * (1 - 0.5**0.5)}
    )


def test_the_cubic_ends_before_the_run_and_the_exchange_goes_on():
    case = ByHand(torch.arange(1.0, 1001).tolist())
    training = case.begin(GraNet(interval=0.1, ramp=0.5), sparsity=0.9, num_steps=100, lr=1e-3)
    pruned, masks = [], []
    for step in range(100):
        training.step(step, case.loss(torch.randn(1000).tolist()))
        pruned.append(num_pruned(training.sparsifier.kept))
        masks.append(training.sparsifier.kept["0.weight"].clone())
    targets = [0.9 * (1 - (1 - t / 50) ** 3) for t in (10, 20, 30, 40)]
    assert pruned[9] == 0
    assert pruned[10::10] == pytest.approx([*(1000 * t for t in targets), *[900] * 5], abs=0.5)
    assert not masks[80].equal(masks[79])
    assert masks[89].equal(masks[80])
    assert int(training.sparsifier.finish()["0.weight"].sum()) == 100


def test_what_is_pruned_may_grow_at_once_from_zero_without_momentum():
    case = ByHand([8.0, 7.0, 6.0, 0.5, 4.0, 3.0, 2.0, 1.0])
    options = GraNet(interval=0.5, regrow=0.5, ramp=0.5)
    training = case.begin(options, sparsity=0.5, num_steps=4, lr=0.01, momentum=0.5)
    for step in range(2):
        training.step(step, case.loss([0.0] * 8))

    training.step(2, case.loss([0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0]))

    # Half of 8 are pruned; .25 (1 + cos(pi / 2)) and so one of the four survivors is exchanged,
    # the 4, against the one with a gradient: .45 before it was pruned.
    assert case.layer.weight.tolist() == [[8, 7, 6, 0, 0, 0, 0, 0]]
    kept = training.sparsifier.kept["0.weight"]
    assert kept.tolist() == [[True] * 4 + [False] * 4]
    assert not training.optimizer.state[case.layer.weight]["momentum_buffer"].any()

    training.step(3, case.loss([0.0, 0.0, 0.0, 5.0, 9.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([8.0, 7, 6, -0.05, 0, 0, 0, 0]))
