"""Progress inside a stage, at an epoch border: what an interrupted stage goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from rayprune.snapshot.encoding import decode_tensors, encode_tensors
from rayprune.sparsifiers import Sparsifier

MODEL, MOMENTUM, SPARSIFIER = "model:", "momentum:", "sparsifier:"


@dataclass(frozen=True)
class Progress:
    """Numbers of an unfinished stage."""

    epochs_done: int = 0
    seconds: float = 0.0
    """Spent in training steps so far."""
    pruned: Mapping[str, float] | None = None
    """Metrics before retraining, measured as the stage began."""


def encode_progress(
    progress: Progress, model: nn.Module, optimizer: Optimizer, sparsifier: Sparsifier
) -> bytes:
    """An epoch checkpoint: weights, momentum, the sparsifier's own state, and the numbers."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {MOMENTUM + str(i): m for i, m in enumerate(_momenta(optimizer)) if m is not None}
    tensors |= {SPARSIFIER + name: tensor for name, tensor in sparsifier.state().items()}
    return encode_tensors({k: v.detach().cpu() for k, v in tensors.items()}, vars(progress))


def restore_progress_(
    content: bytes, model: nn.Module, optimizer: Optimizer, sparsifier: Sparsifier
) -> Progress:
    """Bring model, optimizer and sparsifier to where the checkpoint was.

    Raises ``SnapshotError``.
    """
    tensors, info = decode_tensors(content)
    model.load_state_dict(_part(tensors, MODEL))
    momenta = _part(tensors, MOMENTUM)
    for i, parameter in enumerate(_parameters(optimizer)):
        if str(i) in momenta:
            # Laid out as the parameter is, or the fused step would mix up a channels_last weight.
            buffer = parameter.detach().clone().copy_(momenta[str(i)])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    sparsifier.load_state(_part(tensors, SPARSIFIER))
    return Progress(**info)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _momenta(optimizer: Optimizer) -> list[Tensor | None]:
    return [optimizer.state[p].get("momentum_buffer") for p in _parameters(optimizer)]
