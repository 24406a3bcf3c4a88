"""Another task than classification, from end to end: a class for each pixel."""

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import nn

from rayprune import train
from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker

SIDE = 32
BACKGROUND, DISC, SQUARE = range(3)


def shapes(num, generator):
    """Images (n, 3, 32, 32) with a disc and a square on noise, and the class of each pixel."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centres = torch.randint(5, SIDE - 5, (num, 2, 2, 1, 1), generator=generator)
    dy, dx = (y - centres[:, :, 0]).abs(), (x - centres[:, :, 1]).abs()  # (n, 2, 32, 32)
    targets = torch.full((num, SIDE, SIDE), BACKGROUND)
    targets[dy[:, 0] ** 2 + dx[:, 0] ** 2 <= 25] = DISC
    targets[torch.maximum(dy[:, 1], dx[:, 1]) <= 4] = SQUARE
    colours = torch.tensor([[60, 60, 60], [200, 80, 80], [80, 80, 200]])
    images = colours[targets].permute(0, 3, 1, 2)
    noise = torch.randint(-50, 50, images.shape, generator=generator)
    return (images + noise).clamp(0, 255).to(torch.uint8), targets


def made_data(num_train=96):
    generator = torch.Generator().manual_seed(0)
    return {
        "train": shapes(num_train, generator),
        "val": shapes(16, generator),
        "test": shapes(16, generator),
        "classes": ["background", "disc", "square"],
    }


def tiny_fcn(num_classes, in_channels):
    """Half the resolution and back; returns plain scores."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, num_classes, 1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The table of a whole run through the command: dense, pruned to 80 %, retrained."""
    folder = tmp_path_factory.mktemp("segmentation")
    fields = {
        "task": "segmentation",
        "model": {"target": f"{__name__}:tiny_fcn"},
        "data": {"target": f"{__name__}:made_data", "augment": "crop_flip"},
        "batch_size": 16,
        "dense": {"epochs": 10},
        "prune": {"sparsity": 0.8},
        "retrain": {"epochs": 3},
    }
    file = folder / "shapes.yaml"
    file.write_text(yaml.safe_dump(fields))
    assert train.main([str(file), "--local", f"storage={folder}"]) == 0
    return pq.read_table(folder / "shapes" / "results.parquet").to_pylist()


def test_it_learns_well_above_chance(rows):
    _, targets = made_data()["test"]
    chance = float((targets == BACKGROUND).double().mean()) / 3  # all background: IoU 0 elsewhere
    dense, last = rows
    assert chance < 0.32
    assert dense["test_mean_iou"] > 0.7 and dense["val_mean_iou"] > 0.7
    assert last["test_mean_iou"] > 0.6


def test_pruning_hurts_and_retraining_heals(rows):
    _, last = rows
    assert last["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert last["pruned_val_mean_iou"] < last["val_mean_iou"]
    assert last["pruned_val_loss"] > last["val_loss"]


def test_accuracy_counts_pixels(rows):
    for row in rows:
        assert row["val_accuracy"] > row["val_mean_iou"], "most pixels are background"


def test_a_model_of_torchvision_with_its_dict_of_outputs(tmp_path):
    experiment = Experiment.model_validate(
        {
            "task": "segmentation",
            "model": {
                "target": "torchvision.models.segmentation:lraspp_mobilenet_v3_large",
                "kwargs": {"weights_backbone": None},
            },
            "data": {"target": f"{__name__}:made_data", "kwargs": {"num_train": 16}},
            "batch_size": 8,
            "optim": {"lr": 0.01},
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.9},
            "retrain": {"epochs": 1},
        }
    )
    snapshot = run_plan(experiment, make_plan(experiment), Worker(), str(tmp_path))
    _, last = snapshot.records
    assert num_pruned(snapshot.masks) == round(0.9 * num_weights(snapshot.masks))
    assert 0 < last.metrics["test_mean_iou"] < 1
    assert last.theoretical_speedup > 1
