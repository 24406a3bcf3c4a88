"""Learning rates as closed-form functions of the step, made anew for every stage.

``N`` is the number of steps of a stage, ``w`` the number of its warm-up steps, ``i = 0 .. N-1``
the step and ``u = (i - w) / (N - w)`` the progress after the warm-up. A warm-up is a half cosine
from 0, ``eta_0 (1 - cos(pi i / w)) / 2``, with ``eta_0`` the first rate after it. Nothing is
carried from step to step, so a resume needs no scheduler state.

Source: Zimmer, Spiegel, Pokutta, "How I Learned to Stop Worrying and Love Retraining", ICLR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Schedule = Callable[[int], float]

DenseSchedule = Literal["stepped", "linear", "cosine", "constant"]
"""Names of the dense run's schedules, which `dense_lrs` makes."""
RetrainSchedule = Literal[
    "ft", "lrw", "slr", "clr", "llr", "allr", "constant", "stepped", "cosine", "linear"
]
"""Names of the cycles' schedules, which `retrain_lrs` makes, or `own_lrs` from a user's rate."""
OWN_SCHEDULES = ("constant", "stepped", "cosine", "linear")
"""Those of a cycle that take the user's own rate; the others take theirs from the dense run."""


@dataclass(frozen=True)
class DenseLRs:
    """The dense run's schedule and what retraining takes from it."""

    schedule: Schedule
    num_steps: int
    num_warmup: int
    given_smallest: float | None = None
    """The smallest learning rate of a run elsewhere, where it is said."""

    @property
    def largest(self) -> float:
        """``eta_max``, the largest learning rate of the dense run."""
        return max(self.schedule(i) for i in range(self.num_warmup, self.num_steps))

    @property
    def smallest(self) -> float:
        """``eta_min``, the smallest learning rate of the dense run, its warm-up left out."""
        if self.given_smallest is not None:
            return self.given_smallest
        return min(self.schedule(i) for i in range(self.num_warmup, self.num_steps))


def with_warmup(after: Schedule, num_warmup: int) -> Schedule:
    """`after`, called with steps from 0, behind a half-cosine rise to its first value."""

    def schedule(step: int) -> float:
        if step < num_warmup:
            return after(0) * (1 - math.cos(math.pi * step / num_warmup)) / 2
        return after(step - num_warmup)

    return schedule


def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: lr


def linear(lr: float, num_steps: int) -> Schedule:
    """``lr (1 - u)``: from `lr` to 0, which the step after the last one would reach."""
    return lambda step: lr * (1 - step / num_steps)


def cosine(lr: float, num_steps: int, lowest: float = 0.0) -> Schedule:
    """Half a cosine from `lr` to `lowest`."""
    return lambda step: lowest + (lr - lowest) * (1 + math.cos(math.pi * step / num_steps)) / 2


def stepped(
    lr: float, num_steps: int, milestones: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> Schedule:
    """`lr`, multiplied by `factor` from each milestone (a fraction of the steps) on."""
    borders = [round(milestone * num_steps) for milestone in milestones]
    return lambda step: lr * factor ** sum(step >= border for border in borders)


def dense_lrs(
    name: str,
    *,
    lr: float,
    num_steps: int,
    warmup: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> DenseLRs:
    """Learning rates of a run from `lr`: stepped, linear, cosine or constant.

    `warmup` is a fraction of the run; milestones are fractions of the whole run, warm-up included,
    as recipes give them (in epochs from the start).
    """
    num_warmup = int(warmup * num_steps)
    left = num_steps - num_warmup
    if name == "stepped":
        whole = stepped(lr, num_steps, milestones, factor)
        after: Schedule = lambda step: whole(step + num_warmup)  # noqa: E731
    elif name == "linear":
        after = linear(lr, left)
    elif name == "cosine":
        after = cosine(lr, left)
    else:
        assert name == "constant", name
        after = constant(lr)
    return DenseLRs(with_warmup(after, num_warmup), num_steps, num_warmup)


def retrain_lrs(name: str, *, num_steps: int, dense: DenseLRs, scale: float = 1.0) -> Schedule:
    """Learning rates of one cycle: ft, lrw, slr, clr, llr or allr.

    `scale` is ALLR's ``d`` in [0, 1] and lowers the peak; the others leave it at 1. Raises
    ``ValueError`` when lrw asks for more steps than the dense run had.
    """
    if name == "ft":
        return constant(dense.smallest)
    if name == "lrw":
        if num_steps > dense.num_steps:
            raise ValueError(
                f"lrw replays the last {num_steps} steps of a dense run of {dense.num_steps}"
            )
        return lambda step: dense.schedule(dense.num_steps - num_steps + step)
    num_warmup = num_steps // 10  # SLR, CLR, LLR and ALLR warm up over a tenth
    left = num_steps - num_warmup
    if name == "slr":
        return with_warmup(_resampled(dense, left), num_warmup)
    if name == "clr":
        return with_warmup(cosine(dense.largest, left, dense.smallest), num_warmup)
    assert name in ("llr", "allr"), name
    return with_warmup(linear(scale * dense.largest, left), num_warmup)


def own_lrs(name: str, *, lr: float, num_steps: int, warmup: float, dense: DenseLRs) -> Schedule:
    """Learning rates of one cycle from the user's `lr`: constant, stepped, cosine or linear.

    `stepped` has the shape of the dense run, resampled as SLR's to the steps after the warm-up and
    scaled so that its largest rate is `lr`; under a dense run that is not stepped, that shape.
    `warmup` is a fraction of the cycle.
    """
    if name != "stepped":
        return dense_lrs(name, lr=lr, num_steps=num_steps, warmup=warmup).schedule
    num_warmup = int(warmup * num_steps)
    shape, largest = _resampled(dense, num_steps - num_warmup), dense.largest
    return with_warmup(lambda step: lr * (shape(step) / largest), num_warmup)


def allr_scale(d1: float, d2: float) -> float:
    """ALLR's ``d = min(1, max(d1, d2))``, the factor on the largest dense learning rate."""
    return min(1.0, max(d1, d2))


def _resampled(dense: DenseLRs, num_steps: int) -> Schedule:
    """The dense schedule at another length; its warm-up part is replaced by its largest rate."""
    largest = dense.largest

    def schedule(step: int) -> float:
        entry = step * dense.num_steps // num_steps
        return largest if entry < dense.num_warmup else dense.schedule(entry)

    return schedule
