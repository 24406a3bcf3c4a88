import pytest
import torch
from stepping import ByHand

from rayprune.config.sparsify import Dpf
from rayprune.pruning.masks import num_pruned


def test_gradient_at_the_masked_weights_updates_the_dense_ones():
    case = ByHand([4.0, -3.0, 1.0, 0.5])
    training = case.begin(Dpf(interval=0.5, ramp=0.5), num_steps=2, lr=0.1)

    def half_square():  # its gradient is the layer's output, for every weight
        return 0.5 * case.model(torch.ones(1, 4)).square().sum()

    training.step(0, half_square)  # still dense: output 2.5
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.75, -3.25, 0.75, 0.25]))

    training.step(1, half_square)  # 3.75 - 3.25 = .5
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.7, -3.3, 0.7, 0.2]))

    training.sparsifier.finish()
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([3.7, -3.3, 0, 0]))


def test_cubic_target_and_masks_renewed_at_every_interval():
    case = ByHand(torch.arange(1.0, 1001).tolist())
    training = case.begin(Dpf(interval=1 / 8), sparsity=0.9, num_steps=128)
    masked = []
    for step in range(128):
        training.step(step, case.loss([0.0] * 1000))
        masked.append(num_pruned(training.sparsifier.kept))

    ramp = [0.9 * (1 - (1 - t / 96) ** 3) for t in (0, 16, 32, 48, 64, 80, 96)]

    assert masked[::16] == pytest.approx([*(1000 * s for s in ramp), 900], abs=0.5)
    assert all(masked[step] == masked[step - step % 16] for step in range(128))


def test_by_default_the_mask_of_a_short_run_is_renewed_at_every_step():
    intervals = [ByHand([1.0, 2.0]).begin(Dpf(), num_steps=n) for n in (10, 630, 117_000)]
    assert [training.sparsifier.interval for training in intervals] == [1, 1, 16]
