"""A plain training loop for what a recipe has, without rayprune's own."""

import torch
from torch.utils.data import default_collate


def samples_of(part):
    """A part of a data set as a list of samples."""
    return list(zip(*part, strict=True)) if isinstance(part, tuple) else list(part)


def batches_of(data, part, batch_size):
    """(inputs, targets) in their stored order, with the data set's own collate if it has one."""
    samples, collate = samples_of(data[part]), data.get("collate", default_collate)
    return [collate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]


def losses_of_training(model, task, batches, *, steps, lr):
    """The loss before each of some steps of Adam over the same batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    model.train()
    losses = []
    for step in range(steps):
        inputs, targets = batches[step % len(batches)]
        loss = task.loss(task.forward(model, inputs, targets), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def counts_of(model, task, batches):
    """The counts of all batches together."""
    model.eval()
    with torch.inference_mode():
        return sum(task.count(task.forward(model, *batch), batch[1]) for batch in batches)


def assert_same(one, another):
    """Equal nests of tensors, lists, tuples, dictionaries and plain values."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, another) and one.dtype == another.dtype
    elif isinstance(one, dict):
        assert one.keys() == another.keys()
        for key in one:
            assert_same(one[key], another[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(another)
        for a, b in zip(one, another, strict=True):
            assert_same(a, b)
    else:
        assert one == another
