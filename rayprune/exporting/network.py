"""A trained network with what an export needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.config import Experiment
from rayprune.data import Dataset
from rayprune.exporting.signature import Signature, call_of, signature_of, split
from rayprune.pruning.masks import Masks
from rayprune.results.record import StageRecord
from rayprune.snapshot import Snapshot
from rayprune.training.network import make_model
from rayprune.training.run import dataset_of
from rayprune.training.task import Task, make_task

CPU = torch.device("cpu")
COUNTS = (2, 3, 5, 8)  # samples of calls, by which is seen what depends on the samples


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, in evaluation mode on the CPU, its zeros in place."""

    model: nn.Module
    masks: Masks
    experiment: Experiment
    dataset: Dataset
    record: StageRecord
    """Of its last stage."""

    @cached_property
    def task(self) -> Task:
        return make_task(self.experiment.task)

    @property
    def loses_filters(self) -> bool:
        """Whether whole filters are zero, so that a smaller network gives the same outputs."""
        convolutions = [mask for mask in self.masks.values() if mask.ndim > 2]
        is_pattern = self.experiment.prune.pattern == "filter"
        return is_pattern and any(not mask.flatten(1).any(1).all() for mask in convolutions)

    @cached_property
    def signature(self) -> Signature:
        """How its task calls it. Raises ``ValueError`` where that is no single call."""
        calls = [self._called(*self.samples(count, first=count)) for count in COUNTS]
        return signature_of(calls, self.task.name)

    def inputs(self, count: int) -> list[Tensor]:
        """What its task calls it with for so many test samples, as a row of tensors."""
        return self.tensors_of(*self.samples(count))

    def tensors_of(self, inputs: Any, targets: Any) -> list[Tensor]:
        """What its task calls it with for a batch, as a row of tensors."""
        return split(self._called(inputs, targets)[0])[1]

    def samples(self, count: int, first: int = 0) -> tuple[Any, Any]:
        """Inputs and targets of test samples; some again where there are too few."""
        rows = (first + torch.arange(count)) % len(self.dataset.test)
        return next(iter(self.dataset.test.batches([rows], device=CPU)))

    def _called(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            return call_of(self.task, self.model, inputs, targets)


def trained_network(snapshot: Snapshot, experiment: Experiment) -> Network:
    """The network of a snapshot. Raises ``ValueError`` where its data or code is not here."""
    dataset = dataset_of(experiment)
    model = _made(experiment, dataset)
    try:
        model.load_state_dict(dict(snapshot.weights))
    except RuntimeError as error:  # torch's, with a line for each tensor
        name = experiment.model.name or experiment.model.target
        lines = str(error).split("\n")
        raise ValueError(
            f"{name} is another network than the one that was trained: {lines[-1].strip()}. Export "
            "with the code that trained it"
        ) from None
    return Network(model, snapshot.masks, experiment, dataset, snapshot.records[-1])


def fresh_network(network: Network) -> nn.Module:
    """The same network before training: dense, and as fast as dense kernels are on any values."""
    return _made(network.experiment, network.dataset)


def _made(experiment: Experiment, dataset: Dataset) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the random state is the caller's
        model = make_model(experiment, dataset, is_filled=False)
    return model.requires_grad_(False).eval()


def spread_rows(length: int, count: int) -> Tensor:
    """So many rows from all over a split, which may be sorted by class; some again if too few."""
    return torch.linspace(0, length - 1, count).round().long()
