"""Weights and masks after a stage: the value, its bytes, and the prune step on it."""

from rayprune.snapshot.encoding import SnapshotError, decode, encode
from rayprune.snapshot.prune import norm_drop, prune
from rayprune.snapshot.snapshot import Snapshot

__all__ = ["Snapshot", "SnapshotError", "decode", "encode", "norm_drop", "prune"]
