"""A stage of a plan as a value, and what can be asked of plans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Keys of the stages whose snapshots a stage takes something from."""

    weights: str | None = None
    """Whose weights it starts from; None: the initial weights of the seed."""
    masks: str | None = None
    """Whose weights and masks its prune step looks at; None: nothing was pruned before."""
    teacher: str | None = None
    """Whose outputs it learns from as well (distillation)."""
    ingredients: tuple[str, ...] = ()
    """Whose weights it averages (soups)."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key once: the stages that must be done before this one."""
        named = (self.weights, self.masks, self.teacher, *self.ingredients)
        return tuple(dict.fromkeys(key for key in named if key is not None))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One prune step and the training after it; the dense run prunes nothing."""

    cycle: int
    """0 for the dense run, 1 .. J for the prune-and-retrain cycles."""
    epochs: int
    """Epochs that this stage trains."""
    first_epoch: int = 0
    """Epochs of the same dense run that the stages before it trained; 0 for all other stages."""
    sparsity: float | None
    """Goal after this stage, in [0, 1): zeros among the prunable weights that are not ignored.
    None for a method that finds its own."""
    ignore: tuple[str, ...] = ()
    """Name patterns of prunable weights that this stage leaves alone and does not count."""
    schedule: str
    adapt: bool = False
    """Whether ALLR lowers this stage's peak learning rate; False for all other schedules."""
    key: str
    """Names the result: equal keys, equal snapshots."""
    inputs: Inputs = Inputs()
    part_of: str | None = None
    """Key of the dense run that this stage is the beginning of; None for a whole stage."""

    @property
    def is_dense(self) -> bool:
        return self.cycle == 0

    @property
    def title(self) -> str:
        """What people call it: "dense", "dense to epoch 3", "cycle 2, 86.4% sparse"."""
        if self.part_of is not None:
            return f"dense to epoch {self.last_epoch}"
        sparsity = "" if self.sparsity is None else f", {self.sparsity:.1%} sparse"
        return "dense" if self.is_dense else f"cycle {self.cycle}{sparsity}"

    @property
    def last_epoch(self) -> int:
        """Epochs done when the stage ends, counted from the start of its run."""
        return self.first_epoch + self.epochs


@dataclass(frozen=True)
class EpochCount:
    """What sharing equal stages saves."""

    unique: int
    """Epochs of all different stages."""
    naive: int
    """Epochs that separate runs would take."""


def dense_run(plan: Sequence[Stage]) -> Stage:
    """The stage with which the dense run ends."""
    return next(stage for stage in plan if stage.is_dense and stage.part_of is None)


def count_epochs(plans: Iterable[Sequence[Stage]]) -> EpochCount:
    """Epochs of the plans' unique stages, and those of separate runs."""
    stages = [stage for plan in plans for stage in plan]
    unique = {stage.key: stage.epochs for stage in stages}
    return EpochCount(sum(unique.values()), sum(stage.epochs for stage in stages))
