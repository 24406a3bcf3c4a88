"""A user's mistake fails its trial alone; what looks like one and is none fails nothing."""

import pytest
import torch
from disturbed import drivers, opened, snapshots, statuses, write_study

from rayprune.config import load_study
from rayprune.trials import make_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NETS = """
import os
import signal
from pathlib import Path

import torch.distributed as dist
from torch import nn


class Net(nn.Module):
    def __init__(self, meets, classes):
        super().__init__()
        self.layer = nn.Linear(28 * 28, classes)
        self.meets, self.steps = meets, 0

    def forward(self, images):
        rank = dist.get_rank() if dist.is_initialized() else 0
        self.steps += self.training
        if self.training and self.steps == 4:
            if self.meets == "a mistake":
                raise TypeError(f"of the user, met by rank {rank}")
            if self.meets == "an end":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.meets == "a mistake on one rank" and rank == 1:
                raise TypeError("of one rank alone")
            if self.meets == "a mistake on one rank, once" and rank == 1 and not was_here():
                raise TypeError("of one rank, once")
        return self.layer(images.flatten(1))


def was_here():
    mark = Path(__file__).with_suffix(".mark")
    found = mark.exists()
    mark.touch()
    return found


def net(num_classes, meets):
    return Net(meets, num_classes)
"""


@pytest.fixture
def study(small, tmp_path):
    """Write a study whose trials meet something each, and the user's module; return its file."""

    def write(scaling, *meets, **cases):
        (tmp_path / "mine.py").write_text(NETS)
        model = {"target": "mine:net", "kwargs": {"meets": "nothing"}}
        met = {name.replace(" ", "_"): {"model.kwargs": {"meets": name}} for name in meets}
        space = {"way": {"cases": {**met, **cases}}}
        return write_study(tmp_path, {**small, "model": model}, space, scaling)

    return write


@pytest.fixture
def start():
    with drivers() as started:
        yield started


def test_mistakes_and_deaths_that_repeat_fail_their_trials_alone(study, start):
    """One worker: a mistake, too few images, an end of the process in each first epoch, nothing."""
    few = {"batch_size": 60_000}
    file = study({"slots": 1, "max_failures": 1}, "a mistake", "an end", "nothing", few=few)
    output = start(file).finish(1)
    assert statuses(file) == ["failed", "failed", "finished", "failed"]
    mistake, end, _, few = (trial.reason for trial in opened(file).trials)
    assert "TypeError: of the user, met by rank 0 (mine.py, line" in mistake
    assert "its workers died 2 times in epoch 1, the last time: the process of rank 0 died" in end
    assert "experiment.batch_size must be <= the" in few
    assert mistake in output and end in output and few in output
    assert output.count("slot 0: ") == 2, "only the deaths cost the slot its workers"


def test_a_mistake_that_all_ranks_meet_is_the_users_and_one_that_one_rank_meets_an_accident(
    study, start
):
    few = {"batch_size": 60_000}
    once = "a mistake on one rank, once"
    meets = ("a mistake", once, "a mistake on one rank", "nothing")
    file = study({"workers": 2, "max_failures": 1}, *meets, few=few)
    output = start(file).finish(1)
    assert statuses(file) == ["failed", "finished", "failed", "finished", "failed"]
    by_all, _, by_one, _, few = (trial.reason for trial in opened(file).trials)
    assert "TypeError: of the user, met by rank 0 (mine.py, line" in by_all
    assert "its workers died 2 times in epoch 1, the last time: rank 1: " in by_one
    assert "TypeError: of one rank alone" in by_one
    assert "experiment.batch_size must be <= the" in few
    assert by_all in output and by_one in output and few in output

    found, plans = snapshots(file), [trial.plan for trial in make_trials(load_study(file))]
    for once, never in zip(plans[1], plans[3], strict=True):
        weights, calm = found[once.key].weights, found[never.key].weights
        assert all(torch.equal(weights[name], calm[name]) for name in calm)
