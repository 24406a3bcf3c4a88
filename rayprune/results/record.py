"""What one stage did and reached: a row of the results table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What one stage did and reached."""

    key: str
    cycle: int
    """0 for the dense run, 1 .. J for the prune-and-retrain cycles."""
    epochs: int
    """Epochs of training; of a dense run, all of them, whether or not it ran in parts."""
    schedule: str
    lr_peak: float | None
    """Largest learning rate of the stage; None if it did not train."""
    d1: float | None
    d2: float | None
    d: float | None
    """ALLR's measured norm drop, its share of the dense epochs, and the factor on the peak."""
    goal_sparsity: float | None
    """None for methods that find their own sparsity."""
    sparsity: float
    """Zeros among the prunable weights."""
    num_parameters: int
    num_nonzero: int
    """Those left; without filters, also without what read their channels."""
    compression: float
    """num_parameters / num_nonzero."""
    flops: int
    """Multiply-adds of one sample, convolution and linear layers."""
    flops_nonzero: int
    theoretical_speedup: float
    """flops / flops_nonzero (Blalock et al. 2020): an upper bound, not a measured time."""
    weights_from: str | None = None
    """Key of the stage whose weights it started from; None for the initial weights of the seed."""
    masks_from: str | None = None
    """Key of the stage that its prune step looked at; None where nothing was pruned before."""
    part_of: str | None = None
    """Key of the dense run that this stage is the beginning of; None for a whole stage."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """val_… and test_… of the final weights, pruned_val_… before retraining."""
    emptied_layers: tuple[str, ...] = ()
    """Layers that lost all their weights."""
    batch_norm: str = "as trained"
    """Statistics that all metrics were measured with: as trained, or recalibrated."""
    seconds: float = 0.0
    """Time in training steps."""
    samples_per_second: float = 0.0
    workers: int = 1
    """World size."""
    device: str = "cpu"
    """What a worker computed on: "cpu, 1 thread", or the name of its GPU."""
    preprocessing: Mapping[str, Any] | None = None
    """How images became inputs: mean and std of levels from 0 to 1, resize, eval_crop,
    interpolation, channels; None where they were taken as they are."""

    @property
    def measured(self) -> Mapping[str, float]:
        """Its metrics, and the counts that a search may have as a goal."""
        counts = ("sparsity", "num_nonzero", "compression", "flops_nonzero", "theoretical_speedup")
        return {**self.metrics, **{name: float(getattr(self, name)) for name in counts}}


def record_to_json(record: StageRecord) -> dict[str, Any]:
    """Plain JSON of a record."""
    return asdict(record)


def record_from_json(raw: Mapping[str, Any]) -> StageRecord:
    """The record that `record_to_json` wrote."""
    return StageRecord(**{**raw, "emptied_layers": tuple(raw["emptied_layers"])})
