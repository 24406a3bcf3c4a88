"""What a pruned model costs: parameters, multiply-adds, theoretical speed-up.

`flops` in names are multiply-adds: one for each weight each time it is used, half of what torch's
FlopCounterMode counts. Convolution and linear layers only (Blalock et al. 2020).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rayprune.pruning.masks import Masks, num_pruned, sparsity

_META, _CPU = torch.device("meta"), torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """The size of a pruned model beside that of the dense one."""

    num_parameters: int
    """All parameters of the model, biases and normalisation included."""
    num_nonzero: int
    """Those that are left."""
    sparsity: float
    """Pruned fraction of the prunable weights, in [0, 1]."""
    compression: float
    """num_parameters / num_nonzero, >= 1."""
    flops: int
    """Multiply-adds of the dense convolution and linear layers, for one sample."""
    flops_nonzero: int
    """Those of the weights that are left."""
    theoretical_speedup: float
    """flops / flops_nonzero, >= 1; infinite if nothing is left. What no hardware promises."""


def cost(
    num_parameters: int,
    multiply_adds: Mapping[str, int],
    masks: Masks,
    left: Masks | None = None,
) -> Cost:
    """The cost under `masks`, given the model's number of parameters and `multiply_adds`.

    `left` says which parameters are left where it is more than the pruned weights that went:
    `without_dead_inputs` where whole filters do. Sparsity is that of `masks`.
    """
    left = masks if left is None else left
    num_nonzero = num_parameters - num_pruned(left)
    densities = {name: int(mask.count_nonzero()) / mask.numel() for name, mask in left.items()}
    return Cost(
        num_parameters=num_parameters,
        num_nonzero=num_nonzero,
        sparsity=sparsity(masks),
        compression=num_parameters / num_nonzero if num_nonzero else float("inf"),
        flops=sum(multiply_adds.values()),
        flops_nonzero=round(_nonzero(multiply_adds, densities)),
        theoretical_speedup=theoretical_speedup(multiply_adds, densities),
    )


def theoretical_speedup(multiply_adds: Mapping[str, int], densities: Mapping[str, float]) -> float:
    """Dense multiply-adds over those of non-zero weights; a layer without a density is dense."""
    left = _nonzero(multiply_adds, densities)
    return sum(multiply_adds.values()) / left if left else float("inf")


def multiply_adds(
    model: nn.Module, names: Sequence[str], forward: Callable[[nn.Module, torch.device], Any]
) -> dict[str, int]:
    """The multiply-adds of the weights `names`, for what `forward(model, device)` computes.

    A layer that is used twice counts twice, one that evaluation mode does not use has 0. The scores
    of attention have no weights and are not counted. The model stays as it is. Nothing is computed
    unless its way depends on values, as a detector's does: then it runs once, on the CPU.
    """
    try:
        return _counted(_on_meta(model), names, lambda model: forward(model, _META))
    except Exception:  # whatever a model raises that asks for a value
        here = copy.deepcopy(model).to(_CPU)
        return _counted(here, names, lambda model: forward(model, _CPU))


def _counted(
    model: nn.Module, names: Sequence[str], forward: Callable[[nn.Module], Any]
) -> dict[str, int]:
    parameters = dict(model.named_parameters())
    counter = _WeightCounter({_storage(parameters[name]): name for name in names})
    model.eval()
    with torch.no_grad(), counter:
        forward(model)
    return {name: counter.flops.get(name, 0) // 2 for name in names}


class _WeightCounter(TorchDispatchMode):
    """Adds the FLOPs of each operation to the weight, or view of a weight, that it reads.

    Modules would not do: attention uses its projections' weights without calling their modules.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.flops: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **(kwargs or {}))
        if flops := counter.get_total_flops():
            tensors = [value for value in args if isinstance(value, Tensor)]
            for name in filter(None, (self.names.get(_storage(tensor)) for tensor in tensors)):
                self.flops[name] = self.flops.get(name, 0) + flops
        return result


def _storage(tensor: Tensor) -> int:
    """What a weight and its views share."""
    return tensor.untyped_storage()._cdata


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without values; weights that are shared stay shared."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo).to("meta")


def _nonzero(multiply_adds: Mapping[str, int], densities: Mapping[str, float]) -> float:
    return sum(count * densities.get(name, 1.0) for name, count in multiply_adds.items())
