"""What a slot's ranks take for an accident, and an object store without room."""

import os
import signal

import pytest
import ray
import torch
from torch.utils.data import DataLoader, Dataset

from rayprune.distributed import serve
from rayprune.results.storage import StorageError


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
