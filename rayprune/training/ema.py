"""An exponential moving average of a model's weights: what is measured and shipped in their place.

After training step `t`, counted from 0 over the whole run, each parameter and each floating-point
buffer `w` has

    average <- d_t average + (1 - d_t) w,    d_t = min(decay, (1 + t) / (10 + t)),

from the weights that the run starts with, under its masks; so what is pruned is 0 in the average as
well. The short memory at the beginning, as in TensorFlow's ExponentialMovingAverage and timm, is
what lets a short run forget those weights. Other buffers are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.training.worker import Worker, all_reduce_

Place = tuple[dict[str, Any], str]


def decay_at(decay: float, step: int) -> float:
    """`min(decay, (1 + t) / (10 + t))`; for .999: .1, .18, .25, ... and .999 from step 8990 on."""
    return min(decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class WeightAverage:
    """The average of one model; its tensors change in place, the training does not see it."""

    decay: float
    """In (0, 1)."""
    tensors: Mapping[str, Tensor]
    """Name of a parameter or buffer -> its average, laid out as it is."""
    places: Mapping[str, Place]
    """Where each of them is found in the model: a buffer may be another tensor after a forward."""

    @torch.no_grad()
    def update_(self, step: int) -> None:
        """Take in the weights that training step `step` came to."""
        floats = {n: t for n, t in self.tensors.items() if t.is_floating_point()}
        others = {n: t for n, t in self.tensors.items() if n not in floats}
        weight = 1 - decay_at(self.decay, step)
        torch._foreach_lerp_(list(floats.values()), self._trained(floats), weight)
        if others:
            torch._foreach_copy_(list(others.values()), self._trained(others))

    @torch.no_grad()
    def restart_(self) -> None:
        """Begin with what the model holds now."""
        torch._foreach_copy_(list(self.tensors.values()), self._trained(self.tensors))

    @torch.no_grad()
    def ship_(self) -> None:
        """Put the average into the model, for good."""
        torch._foreach_copy_(self._trained(self.tensors), list(self.tensors.values()))

    @contextmanager
    def shipped(self) -> Iterator[None]:
        """Inside, the model computes with the average; afterwards it is bit for bit as it was."""
        trained = [tensor.detach().clone() for tensor in self._trained(self.tensors)]
        self.ship_()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._trained(self.tensors), trained)

    def average_buffers_(self, worker: Worker) -> None:
        """Batch-norm statistics become their mean over all ranks, as those of the model do."""
        for name, tensor in self.tensors.items():
            is_buffer = not isinstance(_at(self.places[name]), nn.Parameter)
            if worker.world_size > 1 and is_buffer and tensor.is_floating_point():
                all_reduce_(tensor, worker).div_(worker.world_size)

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with these. Raises a ValueError if they are not of this model."""
        if tensors.keys() != self.tensors.keys():
            odd = ", ".join(sorted(tensors.keys() ^ self.tensors.keys())[:5])
            raise ValueError(
                f"the average must be of this model's weights, but {odd} are in only one of them. "
                "Start the stage anew."
            )
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def _trained(self, names: Iterable[str]) -> list[Tensor]:
        return [_at(self.places[name]) for name in names]


def start_average(model: nn.Module, decay: float) -> WeightAverage:
    """The average of a run that begins with the weights that the model holds."""
    places = dict(_places(model))
    tensors = {name: _at(place).detach().clone() for name, place in places.items()}
    return WeightAverage(decay, tensors, places)


def _places(model: nn.Module) -> Iterator[tuple[str, Place]]:
    """Every parameter and buffer once, also one that layers share."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{prefix}.{name}" if prefix else name, (held, name)


def _at(place: Place) -> Tensor:
    held, name = place
    tensor: Tensor = held[name]
    return tensor
