"""What many tests need: a few real images, and a small experiment on them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import rayprune.data

EMBEDDED = Path(rayprune.data.__file__).parent / "fashion_mini"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def few_images(tmp_path_factory):
    """{train, test}: Parquet files of 600 and 200 of the embedded images."""
    folder = tmp_path_factory.mktemp("few_images")
    files = {}
    for name, number in (("train", 600), ("test", 200)):
        files[name] = str(folder / f"{name}.parquet")
        pq.write_table(pq.read_table(EMBEDDED / f"{name}.parquet")[:number], files[name])
    return files


@pytest.fixture(scope="session")
def small(few_images):
    """Fields of an experiment of seconds: LeNet-300-100, 3 dense epochs, one cycle of 2."""
    return {
        "model": {"name": "lenet_300_100"},
        "data": {"parquet": few_images},
        "batch_size": 60,
        "optim": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
        "dense": {"epochs": 3},
        "prune": {"sparsity": 0.9},
        "retrain": {"epochs": 2, "schedule": "allr"},
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's folder of files that were downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder
