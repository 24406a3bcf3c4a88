"""The order of the images is derived, and is one order for any number of workers."""

import torch

from rayprune.training.order import derive_seed, epoch_order, epoch_randoms, share
from rayprune.training.worker import Worker


def test_every_image_at_most_once_and_batches_are_full():
    order = epoch_order(103, 10, seed=0, cycle=0, epoch=0)
    assert order.shape == (10, 10)
    assert len(order.unique()) == 100 and int(order.max()) < 103


def test_the_order_depends_on_seed_cycle_and_epoch_alone():
    base = dict(seed=0, cycle=0, epoch=0)
    first = epoch_order(100, 10, **base)
    assert torch.equal(first, epoch_order(100, 10, **base))
    for other in ({"seed": 1}, {"cycle": 1}, {"epoch": 1}):
        assert not torch.equal(first, epoch_order(100, 10, **(base | other)))


def test_the_ranks_shares_are_the_global_batch():
    order = epoch_order(100, 12, seed=3, cycle=1, epoch=2)
    randoms = epoch_randoms(len(order), 12, 4, seed=3, cycle=1, epoch=2)
    for world_size in (1, 2, 3, 4):
        workers = [Worker(rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([share(order, w) for w in workers], 1), order)
        assert torch.equal(torch.cat([share(randoms, w) for w in workers], 1), randoms)


def test_seeds_differ_with_every_part():
    seeds = {derive_seed(*parts) for parts in [(0, 1), (1, 0), (0, 1, "a"), ("0/1",), (0, 11)]}
    assert len(seeds) == 4  # "0/1" is written as (0, 1) is; no caller passes such a part
    assert all(0 <= seed < 2**63 for seed in seeds)
