"""The loss as a module: what it checks, and DDP with parameters that a step does not reach."""

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed, nn

from rayprune.data import InMemory, Split
from rayprune.training.parallel import Loss, leaves_some_out, parallelized
from rayprune.training.task import TASKS, Task
from rayprune.training.worker import Worker, leave_process_group

OURS = TASKS["classification"]


class Halves(nn.Module):
    """Two layers that every step uses, one that none does, and one output that the loss ignores."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.never, self.ignored = nn.Linear(3, 3), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs):
        hidden = self.norm(self.first(inputs)).relu()
        return {"logits": self.last(hidden), "extra": self.ignored(hidden)}


class Experts(nn.Module):
    """Which of the two layers is used depends on the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])

    def forward(self, inputs):
        return self.layers[int(inputs[0, 0] > 0)](inputs)


def split():
    generator = torch.Generator().manual_seed(0)
    return Split(InMemory(torch.randn(16, 3, generator=generator), torch.arange(16) % 2))


def steps(model, task, worker, num_steps=3):
    """Some steps of SGD, a rank with its half of every batch."""
    loss = parallelized(Loss(model, task), split(), worker, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    for step in range(num_steps):
        rows = torch.arange(8) + 4 * step % 16
        own = rows[worker.rank :: worker.world_size] % 16
        inputs, targets = next(split().batches([own], device=worker.device))
        optimizer.zero_grad(set_to_none=True)
        loss(inputs, targets).backward()
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def as_rank(rank, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    worker = Worker(rank, 2)
    before = Halves().state_dict()
    after = steps(Halves(), OURS, worker)
    for name, value in after.items():
        reached = not name.startswith(("never", "ignored"))
        assert torch.equal(value, before[name]) != reached, name
    experts = Task(OURS.loss, OURS.count, OURS.metrics, find_unused_parameters=True)
    together, alone = steps(Experts(), experts, worker), steps(Experts(), experts, Worker())
    if rank == 0:  # the first sample decides, so both halves of a batch must agree for this
        assert together.keys() == alone.keys()
    values = torch.cat([value.flatten() for value in together.values()])
    both = [torch.empty_like(values), torch.empty_like(values)]
    distributed.all_gather(both, values)
    assert torch.equal(*both)
    leave_process_group()


def test_two_ranks_cope_with_parameters_that_are_not_reached(tmp_path):
    multiprocessing.spawn(as_rank, (str(tmp_path),), nprocs=2)


def test_looking_for_them_changes_nothing():
    model = Halves()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    worker = Worker()
    assert isinstance(parallelized(Loss(model, OURS), split(), worker, 4), Loss)
    assert leaves_some_out(Loss(model, OURS), split(), 4)
    assert not leaves_some_out(Loss(nn.Linear(3, 2), OURS), split(), 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda output, targets: output, r"loss must return one number as a tensor, got \(2, 2\)"),
        (lambda output, targets: 0.3, "loss must return one number as a tensor, got float"),
        (lambda output, targets: output.detach().sum(), "the loss has no gradient"),
    ],
)
def test_a_broken_loss_is_named(loss, message):
    broken = Task(loss, OURS.count, OURS.metrics, name="task nets:task")
    with pytest.raises(ValueError, match=f"^task nets:task: {message}"):
        Loss(nn.Linear(3, 2), broken)(torch.ones(2, 3), torch.zeros(2))
