import pytest
import torch
from pydantic import ValidationError
from stepping import ByHand

from rayprune.config.sparsify import AcDc
from rayprune.sparsifiers.acdc import compressed_phases


def test_phases_of_the_paper():
    phases = compressed_phases(100, warmup=0.1, phase=0.05, end=0.15)
    assert phases == [*((k, k + 5) for k in range(10, 71, 10)), (85, 100)]


def test_the_phase_before_the_end_is_decompressed_in_runs_of_any_length():
    for num_steps in (1, 2, 7, 30, 99, 630):
        for phase in (0.02, 0.05, 0.11, 0.4, 0.9):
            phases = compressed_phases(num_steps, warmup=0.1, phase=phase, end=0.15)
            end = round(0.85 * num_steps)
            assert phases[-1] == (end, num_steps)
            if num_steps > 2 / phase:
                assert all(last < end for _, last in phases[:-1])


def test_weights_go_and_come_back_from_zero_without_momentum():
    # One dense step; two compressed, two decompressed; three compressed to the end.
    case = ByHand([4.0, 3.0, 2.0, 1.0])
    options = AcDc(warmup=1 / 8, phase=1 / 4, end=3 / 8)
    training = case.begin(options, sparsity=0.5, num_steps=8, lr=0.1, momentum=0.5)
    assert training.sparsifier.phases == [(1, 3), (5, 8)]

    def step(number: int, gradient: list[float]) -> list[float]:
        training.step(number, case.loss(gradient))
        return case.layer.weight[0].tolist()

    def momentum() -> list[float]:
        return training.optimizer.state[case.layer.weight]["momentum_buffer"][0].tolist()

    assert step(0, [1.0, 1.0, 1.0, 1.0]) == pytest.approx([3.9, 2.9, 0, 0])
    assert momentum() == [1, 1, 1, 1], "kept as weights go"
    assert step(1, [0.0, 0.0, 4.0, 4.0]) == pytest.approx([3.85, 2.85, 0, 0])
    assert step(2, [0.0, 0.0, 4.0, 4.0]) == pytest.approx([3.825, 2.825, 0, 0])
    assert momentum() == [0.25, 0.25, 0, 0], "forgotten as weights come back"
    assert step(3, [0.0, 0.0, 0.0, -30.0]) == pytest.approx([3.8125, 2.8125, 0, 3])
    assert step(4, [0.0, 0.0, 0.0, 0.0]) == pytest.approx([3.80625, 0, 0, 4.5])
    assert training.sparsifier.finish()["0.weight"].tolist() == [[True, False, False, True]]


def test_phases_must_leave_room():
    with pytest.raises(ValidationError, match=r"warmup \+ end must be < 1, got 0\.5 \+ 0\.5"):
        AcDc(warmup=0.5, end=0.5)


def test_a_run_may_start_compressed():
    case = ByHand([4.0, 3.0, 2.0, 1.0])
    training = case.begin(AcDc(warmup=0.0, phase=0.2), sparsity=0.5, num_steps=20)
    torch.testing.assert_close(case.layer.weight[0], torch.tensor([4.0, 3, 0, 0]))
    assert training.sparsifier.is_compressed(0)
