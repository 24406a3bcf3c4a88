"""Where an unfinished stage stands at an epoch border: what an interrupted stage goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from rayprune.snapshot.encoding import SnapshotError, decode_tensors, encode_tensors
from rayprune.sparsifiers import Sparsifier

MODEL, MOMENTUM, SPARSIFIER = "model:", "momentum:", "sparsifier:"


@dataclass(frozen=True)
class EpochState:
    """Numbers of an unfinished stage."""

    epochs_done: int = 0
    """Counted from the start of the run, also where the stage began later."""
    seconds: float = 0.0
    """Spent in training steps so far."""
    pruned: Mapping[str, float] | None = None
    """Metrics before retraining, measured as the stage began."""
    history: Sequence[Mapping[str, float]] = ()
    """Metrics of every epoch, the last ones of its run if it began with another stage's end."""


def encode_checkpoint(
    state: EpochState, model: nn.Module, optimizer: Optimizer, sparsifier: Sparsifier
) -> bytes:
    """An epoch checkpoint: weights, momentum, the sparsifier's own state, and the numbers.

    Its checksum comes first, since no manifest says it.
    """
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {MOMENTUM + name: m for name, m in momentum_of(model, optimizer).items()}
    tensors |= {SPARSIFIER + name: tensor for name, tensor in sparsifier.state().items()}
    content = encode_tensors({k: v.detach().cpu() for k, v in tensors.items()}, vars(state))
    return hashlib.sha256(content).digest() + content


def restore_checkpoint_(
    content: bytes, model: nn.Module, optimizer: Optimizer, sparsifier: Sparsifier
) -> EpochState:
    """Bring model, optimizer and sparsifier to where the checkpoint was.

    Raises ``SnapshotError``.
    """
    tensors, state = _decode(content)
    model.load_state_dict(_part(tensors, MODEL))
    set_momentum_(model, optimizer, _part(tensors, MOMENTUM))
    sparsifier.load_state(_part(tensors, SPARSIFIER))
    return state


def epochs_done_of(content: bytes) -> int:
    """Epochs of its run that a checkpoint has behind it. Raises ``SnapshotError``."""
    return _decode(content)[1].epochs_done


def momentum_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """SGD's momentum by parameter name, of the parameters that have some."""
    found = {n: optimizer.state[p].get("momentum_buffer") for n, p in _trained(model, optimizer)}
    return {name: momentum for name, momentum in found.items() if momentum is not None}


def set_momentum_(model: nn.Module, optimizer: Optimizer, momentum: Mapping[str, Tensor]) -> None:
    """Let SGD go on with this momentum."""
    for name, parameter in _trained(model, optimizer):
        if name in momentum:
            # Laid out as the parameter is, or the fused step would mix up a channels_last weight.
            buffer = parameter.detach().clone().copy_(momentum[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer


def _decode(content: bytes) -> tuple[dict[str, Tensor], EpochState]:
    checksum, rest = content[:32], content[32:]
    if hashlib.sha256(rest).digest() != checksum:
        raise SnapshotError("the epoch checkpoint does not match its checksum")
    tensors, info = decode_tensors(rest)
    try:
        return tensors, EpochState(**{**info, "history": tuple(info["history"])})
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"the epoch checkpoint is of another version: {error}") from error


def _trained(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return ((n, p) for n, p in model.named_parameters() if id(p) in trained)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
