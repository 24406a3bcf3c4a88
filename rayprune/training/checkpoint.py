"""Where an unfinished stage stands at an epoch border: what an interrupted stage goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from rayprune.snapshot.encoding import SnapshotError, decode_tensors, encode_tensors
from rayprune.sparsifiers import Sparsifier
from rayprune.training.ema import WeightAverage
from rayprune.training.optimizer import optimizer_state, set_optimizer_state_

MODEL, TRAINING, SPARSIFIER = "model:", "training:", "sparsifier:"
AVERAGE = "average:"  # among what training goes on with


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
    state: EpochState,
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier,
    average: WeightAverage | None = None,
) -> bytes:
    """An epoch checkpoint: weights, what training and sparsifier go on with, and the numbers.

    Its checksum comes first, since no manifest says it.
    """
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    training = training_state(model, optimizer, average)
    tensors |= {TRAINING + name: tensor for name, tensor in training.items()}
    tensors |= {SPARSIFIER + name: tensor for name, tensor in sparsifier.state().items()}
    content = encode_tensors({k: v.detach().cpu() for k, v in tensors.items()}, vars(state))
    return hashlib.sha256(content).digest() + content


def restore_checkpoint_(
    content: bytes,
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier,
    average: WeightAverage | None = None,
) -> EpochState:
    """Bring model, optimizer, sparsifier and average to where the checkpoint was.

    Raises ``SnapshotError``.
    """
    tensors, state = _decode(content)
    model.load_state_dict(_part(tensors, MODEL))
    set_training_state_(model, optimizer, average, _part(tensors, TRAINING))
    sparsifier.load_state(_part(tensors, SPARSIFIER))
    return state


def epochs_done_of(content: bytes) -> int:
    """Epochs of its run that a checkpoint has behind it. Raises ``SnapshotError``."""
    return _decode(content)[1].epochs_done


def training_state(
    model: nn.Module, optimizer: Optimizer, average: WeightAverage | None
) -> dict[str, Tensor]:
    """What training goes on with beside weights and masks: "exp_avg:conv.weight" and the like.

    It is what the optimiser remembers and, as "average:conv.weight", the average of the weights.
    """
    averaged = {} if average is None else average.tensors
    own = {AVERAGE + name: tensor for name, tensor in averaged.items()}
    return optimizer_state(model, optimizer) | own


def set_training_state_(
    model: nn.Module,
    optimizer: Optimizer,
    average: WeightAverage | None,
    state: Mapping[str, Tensor],
) -> None:
    """Go on with what `training_state` gave. Raises a ValueError if it has no average to go on."""
    set_optimizer_state_(model, optimizer, state)
    if average is not None:
        average.load_(_part(state, AVERAGE))


def _decode(content: bytes) -> tuple[dict[str, Tensor], EpochState]:
    checksum, rest = content[:32], content[32:]
    if hashlib.sha256(rest).digest() != checksum:
        raise SnapshotError("the epoch checkpoint does not match its checksum")
    tensors, info = decode_tensors(rest)
    try:
        return tensors, EpochState(**{**info, "history": tuple(info["history"])})
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"the epoch checkpoint is of another version: {error}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
