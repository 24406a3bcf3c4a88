"""What ranks take for an accident, an object store without room, and Ray Train's reports."""

import os
import signal
from types import SimpleNamespace

import pytest
import ray
import torch
from asked import Asked
from torch.utils.data import DataLoader, Dataset

from rayprune.config import Experiment
from rayprune.config.goals import Goals
from rayprune.distributed import serve
from rayprune.distributed.ledger import Run
from rayprune.plan import make_plan
from rayprune.results.storage import StorageError
from rayprune.training.stage import EpochReport
from rayprune.training.worker import Worker


class Killed(Dataset):
    """Its reader's process is killed, as by a kernel that is out of memory."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class Mistaken(Dataset):
    """The user's own, with a mistake in it."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise TypeError("of the user")


def error_of(images):
    with pytest.raises(Exception) as caught:
        list(DataLoader(images, num_workers=1))
    return caught.value


def test_a_reader_that_was_killed_is_an_accident_and_one_with_a_mistake_is_none():
    assert serve._is_accident(error_of(Killed()))
    assert not serve._is_accident(error_of(Mistaken()))


@pytest.mark.parametrize(
    "error",
    [
        StorageError("the disk is full"),
        MemoryError(),
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
        torch.distributed.DistNetworkError("reset"),
        ray.exceptions.OutOfDiskError("full"),
    ],
)
def test_disks_networks_and_ray_are_no_users_mistakes(error):
    assert serve._is_accident(error)


@pytest.mark.parametrize("error", [TypeError("forward()"), ValueError("lr"), RuntimeError("shape")])
def test_all_else_may_be_one(error):
    assert not serve._is_accident(error)


def test_a_snapshot_for_which_the_object_store_has_no_room_is_left_to_the_storage(monkeypatch):
    def put(value):
        raise ray.exceptions.OutOfDiskError("full")

    monkeypatch.setattr(ray, "put", put)
    assert serve._put(b"weights") is None


# ---- goals that a task does not measure, as a user's may ----


@pytest.mark.parametrize(
    ("metric", "mistakes"),
    [
        ("val_rmse", []),
        (
            "val_f1",
            [
                "search.metric: val_f1 is not measured by task nets:task, which has loss, rmse. "
                "Write search.metric: val_rmse"
            ],
        ),
    ],
)
def test_a_goal_that_is_not_measured_fails_a_stage_at_its_first_epoch(
    monkeypatch, metric, mistakes
):
    stage = make_plan(Experiment())[0]
    answers = {"epoch_done": True, "mistake": True}
    told = Asked(SimpleNamespace(**{w: lambda *_, a=a: a for w, a in answers.items()}))
    goals = Goals(
        metrics=(metric,),
        modes=("max",),
        within_dense=None,
        lower_is_better=("loss",),
        task="task nets:task",
    )
    place = SimpleNamespace(ledger=told, storage="", folder="", goals=goals)

    def run_stage(*arguments, on_epoch, **options):
        for epochs in (1, 2):
            on_epoch(EpochReport(stage, [{"val_loss": 0.1, "val_rmse": 0.3}] * epochs, 1.0))

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(serve, "run_stage", run_stage)
    run = Run(Experiment(), stage, "0")
    serve._attempt(run, None, Worker(0, 1), "incarnation", place, lambda report: None)
    assert [word[-1] for word in told.words if word[0] == "mistake"] == mistakes
    assert sum(word[0] == "epoch_done" for word in told.words) == (0 if mistakes else 2)


# ---- what Ray Train hears ----


class Clock:
    """Time as a rank's process sees it."""

    def __init__(self, now):
        self.now = now

    def monotonic(self):
        return self.now


@pytest.fixture
def ranks(monkeypatch):
    """Two ranks that hear what rank 0 decides, each with a clock of its own."""
    said = []

    def broadcast(value, worker):
        if worker.is_first:
            said.append(value)
        return said[-1]

    monkeypatch.setattr(serve, "broadcast", broadcast)
    return [Rank(monkeypatch, rank, start) for rank, start in enumerate((1e6, 5e3))]


class Rank:
    """What one rank reports to Ray Train."""

    def __init__(self, monkeypatch, rank, now):
        self.monkeypatch, self.clock, self.reported = monkeypatch, Clock(now), []
        self.reports = serve._TrainReports(3, Worker(rank, 2))

    def epoch_done(self, stage, history, after=0.0):
        self.clock.now += after
        with self.monkeypatch.context() as patched:
            patched.setattr(serve, "time", self.clock)
            patched.setattr(serve.ray.train, "report", self.reported.append)
            report = EpochReport(stage, history, 1.0)
            self.reports.epoch_done(Run(EXPERIMENT, stage, "07"), report)


EXPERIMENT = Experiment.model_validate({"prune": {"rewind": {"epoch": 3}}})
PART, DENSE, CYCLE = make_plan(EXPERIMENT)


def history(epochs):
    return [{"val_accuracy": epoch / 100} for epoch in range(1, epochs + 1)]


def test_a_report_has_the_names_of_slot_trial_and_stage_and_the_epochs_metrics(ranks):
    first, _ = ranks
    first.epoch_done(DENSE, history(2))
    first.epoch_done(CYCLE, history(1), after=60)
    assert first.reported == [
        {"slot": 3, "trial": "07", "stage": "dense", "epoch": 5, "val_accuracy": 0.02},
        {"slot": 3, "trial": "07", "stage": CYCLE.title, "epoch": 1, "val_accuracy": 0.01},
    ], "epochs as people count them: those of the dense run in all its parts"


def test_epochs_that_follow_fast_are_left_out(ranks):
    """A rank would wait for Ray Train's controller, which takes one report each time it looks."""
    first, _ = ranks
    for epochs in range(1, 14):
        first.epoch_done(CYCLE, history(epochs), after=serve.REPORT_S / 4)
    assert [report["epoch"] for report in first.reported] == [1, 5, 9, 13]


def test_all_ranks_report_the_same_epochs_whatever_their_clocks_say(ranks):
    """Ray Train waits for the reports of all."""
    waits = [(0, 90), (1, 90), (1, 0), (5, 0), (0.5, 90), (6, 1)]
    for epochs, pair in enumerate(waits, 1):
        for rank, after in zip(ranks, pair, strict=True):
            rank.epoch_done(CYCLE, history(epochs), after)
    first, second = ranks
    assert [report["epoch"] for report in first.reported] == [1, 4, 6]
    assert second.reported == first.reported
