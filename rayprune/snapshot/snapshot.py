"""Weights, masks and records after a stage: result, start value and hand-over at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rayprune.pruning.masks import Masks
from rayprune.results.record import StageRecord


@dataclass(frozen=True)
class Snapshot:
    """Where a plan stands after a stage."""

    weights: Mapping[str, Tensor]
    """The model's state_dict with its plain keys, on the CPU."""
    masks: Masks
    """Parameter name -> bool, True = kept; an entry for every prunable weight, in model order."""
    records: tuple[StageRecord, ...] = ()
    """A record for each stage that led here, the dense run first."""
    training_state: Mapping[str, Tensor] = field(default_factory=dict)
    """What the optimiser remembers, as "exp_avg:conv.weight", and the average of the weights, in
    the middle of a dense run alone: its second part goes on with it. Every other stage starts
    afresh."""
