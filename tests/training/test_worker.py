"""Ranks say things to each other; a process is left as it was found."""

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed, nn

from rayprune.training.worker import (
    Worker,
    all_reduce_,
    average_buffers_,
    broadcast,
    check_equal,
    gather,
    leave_process_group,
    local_worker,
    met_by_all,
    training_process,
)

ALONE = Worker()


def process_settings():
    cudnn = torch.backends.cudnn
    return torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark


@pytest.fixture(params=[(1, False, True), (2, True, False)])
def settings(request):
    """Settings of a caller's process, and the test's own again afterwards."""
    cudnn, before = torch.backends.cudnn, process_settings()

    def set_to(threads, deterministic, benchmark):
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark

    set_to(*request.param)
    yield request.param
    set_to(*before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_that_trained_is_left_as_it_was(fails, settings):
    torch.manual_seed(5)
    state = torch.get_rng_state()

    def work():
        with training_process(3):
            assert process_settings() == (3, True, False)
            torch.manual_seed(0)
            torch.rand(10)
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            work()
    else:
        work()
    assert process_settings() == settings
    assert torch.equal(torch.get_rng_state(), state)


def test_a_plain_process_is_a_worker_alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with local_worker() as worker:
        assert (worker.rank, worker.world_size, worker.is_first) == (0, 1, True)
        assert not distributed.is_initialized()


def test_alone_nothing_is_said():
    tensor = torch.tensor([1.0, 2.0])
    assert all_reduce_(tensor, ALONE) is tensor and tensor.tolist() == [1, 2]
    assert broadcast("a", ALONE) == "a"
    assert broadcast(False, ALONE) is False and broadcast([], ALONE) == []
    assert gather("a", ALONE) == ["a"]
    check_equal("a", "the masks", ALONE)


def test_what_is_broadcast_is_a_value():
    with pytest.raises(AssertionError):
        broadcast(None, ALONE)


def as_rank(rank, folder):
    """Each rank checks what it hears; the parent sees the first failure."""
    address = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.set_num_threads(1)
    worker = Worker(rank, 2)
    assert worker.is_first == (rank == 0)

    tensor = torch.tensor([1.0 + rank, 10.0])
    assert all_reduce_(tensor, worker) is tensor and tensor.tolist() == [3, 20]
    assert broadcast("of rank 0" if rank == 0 else None, worker) == "of rank 0"
    assert broadcast(b"" if rank == 0 else None, worker) == b""
    assert gather(f"of rank {rank}", worker) == ["of rank 0", "of rank 1"]

    check_equal("the same", "the masks", worker)
    with pytest.raises(AssertionError, match="ranks disagree on the masks"):
        check_equal(f"of rank {rank}", "the masks", worker)

    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(1.0 + 2 * rank)
    norm.num_batches_tracked.fill_(7)
    with torch.no_grad():
        norm.weight.fill_(rank)
    average_buffers_(norm, worker)
    assert norm.running_mean.tolist() == [2, 2] and norm.running_var.tolist() == [1, 1]
    assert norm.num_batches_tracked == 7, "a count is the same on every rank"
    assert norm.weight.tolist() == [rank, rank], "parameters are DDP's"
    leave_process_group()


def test_two_ranks_hear_each_other(tmp_path):
    multiprocessing.spawn(as_rank, (str(tmp_path),), nprocs=2)


def meet(rank, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/together", rank=rank, world_size=2
    )
    worker = Worker(rank, 2)
    assert met_by_all("both", worker)
    if rank == 1:
        assert not met_by_all("alone", worker, timeout_s=0.5)
    distributed.barrier()
    leave_process_group()


def test_an_error_that_one_rank_meets_alone_is_known_as_such(tmp_path):
    multiprocessing.spawn(meet, (str(tmp_path),), nprocs=2)
