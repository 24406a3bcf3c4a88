"""How a task calls a network, as rows of tensors: files know no dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rayprune.training.task import Task

_TENSOR = object()  # stands where a tensor was


@dataclass(frozen=True, eq=False)
class Nest:
    """What is around a row of tensors; what is no tensor stays as it was."""

    structure: pytree.TreeSpec
    leaves: tuple[Any, ...]

    def fill(self, tensors: Sequence[Tensor]) -> Any:
        """The nest with these tensors in their places."""
        left: Iterator[Tensor] = iter(tensors)
        filled = [next(left) if leaf is _TENSOR else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(filled, self.structure)


@dataclass(frozen=True, eq=False)
class Signature:
    """What a network is called with, and what it returns."""

    inputs: Nest
    """Of its positional and its named arguments."""
    outputs: Nest
    names: tuple[str, ...]
    """Of each input tensor, as files call it."""
    varying: tuple[tuple[int, ...], ...]
    """Of each input tensor the dimensions whose size depends on the samples."""

    @property
    def are_batches(self) -> tuple[bool, ...]:
        """Of each input tensor, whether its first dimension is that of the samples."""
        return tuple(0 in axes for axes in self.varying)


class Flat(nn.Module):
    """A network that takes and returns plain tensors in a row."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model, self._inputs = model, signature.inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self._inputs.fill(tensors)
        return tuple(split(self.model(*args, **kwargs))[1])


def split(nest: Any) -> tuple[Nest, list[Tensor]]:
    """A nest as what is around its tensors, and these in a row."""
    leaves, structure = pytree.tree_flatten(nest)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    others = tuple(_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return Nest(structure, others), tensors


def call_of(task: Task, model: nn.Module, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """The arguments ((positional), {named}) with which a task calls a network, and its output.

    Raises ``ValueError`` for a task that does not call it once.
    """
    recorder = _Recorder(model).eval()
    task.forward(recorder, inputs, targets)
    if len(recorder.calls) != 1:
        raise ValueError(
            f"{task.name}: forward calls the network {len(recorder.calls)} times, and a file holds "
            "one call. Write --to safetensors"
        )
    return recorder.calls[0]


def signature_of(calls: Sequence[tuple[Any, Any]], task: str) -> Signature:
    """Of calls with different samples, and numbers of them.

    Raises ``ValueError`` where it depends on these how many tensors there are, or where there are
    none.
    """
    arguments, output = calls[0]
    inputs, tensors = split(arguments)
    others = [split(again)[1] for again, _ in calls[1:]]
    outputs, results = split(output)
    counts = {len(tensors), *map(len, others)}
    if len(counts) > 1 or not tensors:
        raise ValueError(
            f"{task} calls the network with {' or '.join(map(str, sorted(counts)))} tensors, and a "
            "file takes a fixed number. Write --to safetensors or packed"
        )
    if not results:
        raise ValueError(
            f"the network returns {type(output).__name__}, in which torch finds no tensors. Return "
            "tensors in a dictionary, a list or a tuple, or write --to safetensors or packed"
        )
    varying = tuple(
        tuple(
            axis
            for axis, size in enumerate(tensor.shape)
            if any(other[place].shape[axis] != size for other in others)
        )
        for place, tensor in enumerate(tensors)
    )
    return Signature(inputs, outputs, _names(arguments, len(tensors)), varying)


def _names(arguments: Any, count: int) -> tuple[str, ...]:
    """Those of named arguments where each is a tensor, else numbers."""
    args, kwargs = arguments
    if not args and len(kwargs) == count and all(isinstance(v, Tensor) for v in kwargs.values()):
        return tuple(kwargs)
    return ("input",) if count == 1 else tuple(f"input_{number}" for number in range(count))


class _Recorder(nn.Module):
    """Calls a model, and remembers how."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[tuple[Any, Any]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.model(*args, **kwargs)
        self.calls.append(((args, kwargs), output))
        return output
