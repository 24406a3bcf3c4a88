"""Methods that train other tensors, from which the sparse weights are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.base import Sparsifier, zero_


class SparseWeight(nn.Module):
    """A parametrization: `forward` computes the sparse weight from the trained one."""

    def forward(self, trained: Tensor) -> Tensor:
        raise NotImplementedError

    def kept(self, trained: Tensor) -> Tensor:
        """Where the shipped weight is not removed: bool, of the weight's shape."""
        raise NotImplementedError


Layer = TypeVar("Layer", bound=SparseWeight)


class Reparametrized(Sparsifier, Generic[Layer]):
    """Weights that `torch.nn.utils.parametrize` computes while the stage runs.

    `conv.weight` is then trained as `conv.parametrizations.weight.original`, with the method's own
    parameters beside it as `conv.parametrizations.weight.0.<name>`; `finish` brings the plain names
    back, in their old order.
    """

    def sparse_weight(self, weight: Tensor) -> Layer:
        """The parametrization of one weight."""
        raise NotImplementedError

    def begin(self) -> None:
        self._refuse_shared_weights()
        self.layers: dict[str, Layer] = {}
        self._order: dict[str, list[str]] = {}
        for name, weight in self.weights.items():
            module, attribute = self._place(name)
            self._order[name] = list(module._parameters)
            self.layers[name] = self.sparse_weight(weight)
            parametrize.register_parametrization(module, attribute, self.layers[name])

    def final_masks(self) -> Masks:
        return {n: layer.kept(self.weights[n].detach()) for n, layer in self.layers.items()}

    @contextmanager
    def shipped(self) -> Iterator[Masks]:
        yield self.final_masks()  # the forward pass already computes what would be shipped

    def finish(self) -> Masks:
        with self.shipped() as masks:
            for name in self.weights:
                module, attribute = self._place(name)
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
        for name, order in self._order.items():
            parameters = self._place(name)[0]._parameters
            for attribute in order:
                parameters[attribute] = parameters.pop(attribute)
        zero_(self.weights, masks)
        return masks

    def _place(self, name: str) -> tuple[nn.Module, str]:
        module, _, attribute = name.rpartition(".")
        return self.model.get_submodule(module), attribute

    def _refuse_shared_weights(self) -> None:
        prunable = {id(weight) for weight in self.weights.values()}
        named = self.model.named_parameters(remove_duplicate=False)
        shared = {name for name, weight in named if id(weight) in prunable} - self.weights.keys()
        if shared:
            raise ValueError(
                f"dense.sparsify.method {self.options.method} cannot train a model whose layers "
                f"share a weight, got {', '.join(sorted(shared))}. Add it to prune.ignore, or "
                "write a method that is told a goal, such as gmp."
            )
