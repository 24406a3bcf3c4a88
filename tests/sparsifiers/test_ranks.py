"""Two processes with half of each batch each end with the same weights and masks, bit for bit,
and, where a batch is no more than its images, with those of one process with all of it."""

import torch
import torch.multiprocessing as multiprocessing
from stepping import Training, begin
from test_base import EPOCHS, OPTIONS, STEPS, made_batches, made_model
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from rayprune.pruning.masks import digest
from rayprune.training.worker import leave_process_group

EQUAL_TO_ONE = ("gmp", "dpf", "rigl", "acdc", "granet")


class Parallel(Training):
    """Trains through DDP, as the training loop does."""

    def classify(self, batches, first_step=0):
        parallel = DistributedDataParallel(self.model, broadcast_buffers=False)
        for step, (x, y) in enumerate(batches, first_step):
            self.step(step, lambda x=x, y=y: torch.nn.functional.cross_entropy(parallel(x), y))


def train_all(rank: int, address: str) -> None:
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.set_num_threads(1)
    half = slice(rank, None, 2)
    batches = [(x[half], y[half]) for x, y in made_batches()]
    for name, options in OPTIONS.items():
        training = begin(
            options,
            made_model(),
            sparsity=0.8,
            num_steps=STEPS * EPOCHS,
            weight_decay=5e-3,
            momentum=0.9,
        )
        Parallel(training.model, training.sparsifier, training.optimizer).classify(batches)
        masks = training.sparsifier.finish()
        own = torch.cat([p.detach().flatten() for p in training.model.parameters()])
        both = [torch.empty_like(own), torch.empty_like(own)]
        digests = [None, None]
        distributed.all_gather(both, own)
        distributed.all_gather_object(digests, digest(masks))
        assert both[0].equal(both[1]), name
        assert digests[0] == digests[1], name
    for name in EQUAL_TO_ONE:
        together = trained(OPTIONS[name], Parallel, [(x[half], y[half]) for x, y in made_batches()])
        alone = trained(OPTIONS[name], Training, made_batches())
        masks = [training.sparsifier.finish() for training in (together, alone)]
        assert digest(masks[0]) == digest(masks[1]), name
        for one, other in zip(*(t.model.parameters() for t in (together, alone)), strict=True):
            assert torch.allclose(one, other, atol=1e-5), name
    leave_process_group()


def smooth_model():
    """Nothing in it makes a rounding error grow, and no image sees the others of its batch."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(96, 4)).to(memory_format=torch.channels_last)


def trained(options, kind, batches):
    fields = {"sparsity": 0.8, "num_steps": STEPS * EPOCHS, "weight_decay": 5e-3, "momentum": 0.9}
    made = begin(options, smooth_model(), **fields)
    training = kind(made.model, made.sparsifier, made.optimizer)
    training.classify(batches)
    return training


def test_ranks_stay_equal(tmp_path):
    multiprocessing.spawn(train_all, (f"file://{tmp_path}/rendezvous",), nprocs=2)
