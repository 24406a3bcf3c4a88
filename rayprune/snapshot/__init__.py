"""Weights and masks after a stage: the value, its bytes, and the prune step on it."""

from rayprune.snapshot.encoding import Snapshot, SnapshotError, decode, encode
from rayprune.snapshot.prune import norm_drop, prune

__all__ = ["Snapshot", "SnapshotError", "decode", "encode", "norm_drop", "prune"]
