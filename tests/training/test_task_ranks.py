"""Every kind of task with every optimiser: exact masks on two ranks, and the same bits after an
interruption."""

import pytest
import torch
import torch.multiprocessing as multiprocessing
from made_plans import run, run_until_killed
from torch import distributed, nn

from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.pruning.masks import digest, num_pruned, num_weights
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker, check_equal, leave_process_group

RECIPES = "rayprune.recipes"
TASKS = {
    "segmentation": {
        "model": {"target": f"{__name__}:convolutions"},
        "data": {"target": f"{__name__}:halves"},
        "task": "segmentation",
    },
    "regression": {
        "model": {"target": "rayprune.models.small_cnn:small_cnn", "kwargs": {"num_classes": 1}},
        "data": {
            "target": f"{RECIPES}.regression:turned_images",
            "kwargs": {"num_train": 80, "num_test": 20},
        },
        "task": {"target": f"{RECIPES}.regression:regression", "kwargs": {"scale": 30.0}},
    },
    "text": {
        "model": {"target": f"{RECIPES}.text:classifier", "kwargs": {"width": 16}},
        "data": {"target": f"{RECIPES}.text:snippets", "kwargs": {"num_train": 80, "num_test": 20}},
    },
    "language model": {
        "model": {"target": f"{RECIPES}.language_model:transformer", "kwargs": {"width": 16}},
        "data": {
            "target": f"{RECIPES}.language_model:passages",
            "kwargs": {"num_train": 80, "num_test": 20},
        },
        "task": {"target": f"{RECIPES}.language_model:language_modelling"},
    },
    "detection": {
        "model": {"target": f"{RECIPES}.detector:detector"},
        "data": {"target": f"{RECIPES}.shapes:shapes", "kwargs": {"num_train": 30, "num_test": 8}},
        "task": {"target": f"{RECIPES}.detection:detection", "kwargs": {"num_classes": 3}},
        "batch_size": 8,
    },
}
OPTIMISERS = {
    "sgd": {"lr": 0.01, "clip_norm": 1.0},
    "adam": {"name": "adam", "lr": 0.002, "weight_decay": 0.01},
    "adamw": {"name": "adamw", "lr": 0.002, "ema_decay": 0.9},
}


def halves():
    """Noise, and for each pixel whether it is bright."""

    def part(num, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (num, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return images, (images.float().mean(1) > 127).long()

    return {"train": part(80, 0), "test": part(20, 1), "classes": ["dark", "bright"]}


def convolutions(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, num_classes, 1),
    )


def experiment(task, optimiser):
    fields = {"batch_size": 16, **TASKS[task]}
    return Experiment.model_validate(
        {
            **fields,
            "data": {**fields["data"], "loader_workers": 0, "val_fraction": 0.2},
            "optim": OPTIMISERS[optimiser],
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.8, "allocation": "uniform"},
            "retrain": {"epochs": 2},
        }
    )


def as_rank(rank, folder):
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    torch.set_num_threads(1)
    worker = Worker(rank, 2)
    for number, task in enumerate(TASKS):
        optimiser = list(OPTIMISERS)[number % len(OPTIMISERS)]
        wanted = experiment(task, optimiser)
        snapshot = run_plan(wanted, make_plan(wanted), worker, f"{folder}/{task}")
        check_equal(digest(snapshot.masks), f"masks of {task}", worker)
        weights = torch.cat([w.flatten().double() for w in snapshot.weights.values()])
        check_equal(str(weights.sum().item()), f"weights of {task}", worker)
        assert num_pruned(snapshot.masks) == round(0.8 * num_weights(snapshot.masks)), task
        assert all(torch.equal(snapshot.weights[n] != 0, m) for n, m in snapshot.masks.items())
        assert snapshot.records[-1].workers == 2
    leave_process_group()


def test_two_ranks_have_equal_and_exact_masks(tmp_path):
    multiprocessing.spawn(as_rank, (str(tmp_path),), nprocs=2)


@pytest.mark.parametrize(
    ("task", "optimiser"),
    [(task, list(OPTIMISERS)[(n + 1) % 3]) for n, task in enumerate(TASKS)],
)
def test_a_killed_run_equals_one_that_was_not(task, optimiser, tmp_path):
    wanted = experiment(task, optimiser)
    whole, _ = run(wanted, tmp_path / "whole")
    run_until_killed(wanted, tmp_path / "cut", epochs=2)  # one of the cycle
    again, executed = run(wanted, tmp_path / "cut")
    assert executed == [(1, 2)]
    assert whole.weights.keys() == again.weights.keys()
    assert all(torch.equal(w, again.weights[name]) for name, w in whole.weights.items())
    assert digest(whole.masks) == digest(again.masks)
