"""Options of the methods that sparsify during the dense training: one frozen value a method.

``dense: {sparsify: {method: gmp, sparsity: 0.9}}`` names a method and sets its options; the methods
themselves are in ``rayprune/sparsifiers``. STR, CS and DST find their own sparsity, and their
options only push it up or down; all others are told a goal. Lengths are parts of the run, so that
they mean the same in short and in long ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayprune.config.frozen import Frozen

Interval = Annotated[float, Field(gt=0, le=1)]
Goal = Annotated[float, Field(ge=0, lt=1)]
Allocation = Literal["global", "uniform", "uniform_plus", "erk", "lamp"]


class Options(Frozen):
    """What all methods' options have in common."""

    method: str = "none"
    """Names the method."""


class WithGoal(Options):
    """A method that removes the smallest weights down to a goal."""

    sparsity: Goal | None = None
    """Goal, in [0, 1); null takes `prune.sparsity`."""
    allocation: Allocation = "global"
    """How the removed weights are shared out over the layers."""


class Gmp(WithGoal):
    """Gradual magnitude pruning (Zhu & Gupta 2017)."""

    method: Literal["gmp"] = "gmp"
    """Names the method."""
    interval: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Part of the run between two prune steps, in (0, .5]."""
    recover: bool = True
    """Masked weights keep their value (they only decay) and may be chosen again at the next prune
    step; false: once removed, always removed."""


class Gsm(WithGoal):
    """Global sparse momentum (Ding et al. 2019)."""

    method: Literal["gsm"] = "gsm"
    """Names the method."""
    momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum of the prunable weights, in (0, 1): passive weights decay as fast as
    weight_decay / (1 - momentum), but so do the steps of the others grow, and the paper's .99 wants
    a learning rate of about .005; null takes `optim.momentum`."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Decay of the prunable weights; null takes `optim.weight_decay`. Runs of about 500 steps at
    learning rate .1 need about .01."""


class Lc(WithGoal):
    """Learning-compression (Carreira-Perpinan & Idelbayev 2018)."""

    method: Literal["lc"] = "lc"
    """Names the method."""
    mu: Annotated[float, Field(ge=0)] | None = None
    """Decay of the smallest prunable weights (the largest have none) as the run begins; null takes
    `optim.weight_decay`."""
    growth: Annotated[float, Field(ge=1)] = 1e4
    """Its last value over its first, at least 1; it grows geometrically over the run. Too little
    leaves weights that are not small to be removed at the end: runs of about 600 steps at learning
    rate .1 need a last value of 1 to 5, or about .1 all the time."""
    interval: Interval = 0.02
    """Part of the run between two C steps, which choose the largest weights and let the decay grow,
    in (0, 1]; at least one step."""


class Dpf(WithGoal):
    """Dynamic pruning with feedback (Lin et al. 2020)."""

    method: Literal["dpf"] = "dpf"
    """Names the method."""
    interval: Interval = 1.4e-4
    """Part of the run between two renewals of the mask, in (0, 1]; at least one step. The paper's
    is 16 steps of about 117,000."""
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Part of the run after which the goal is reached, in (0, 1]."""


class Dnw(WithGoal):
    """Discovering neural wirings (Wortsman et al. 2019)."""

    method: Literal["dnw"] = "dnw"
    """Names the method."""
    allocation: Allocation = "erk"
    """How the removed weights are shared out over the layers. The paper's uniform starves small
    layers; global can leave a layer of small initial weights empty from the first step."""


class Str(Options):
    """Soft threshold weight reparametrization (Kusupati et al. 2020). Finds its sparsity."""

    method: Literal["str"] = "str"
    """Names the method."""
    theta_init: float = -5.0
    """Start value of each layer's theta; the threshold is sigmoid(theta). Larger is sparser."""
    theta_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay of theta, which pulls the threshold up to .5; null takes `optim.weight_decay`.
    Larger is sparser, and too large empties the model; runs of about 500 steps at learning rate .1
    need .02 to .1."""


class Cs(Options):
    """Continuous sparsification (Savarese et al. 2020). Finds its sparsity."""

    method: Literal["cs"] = "cs"
    """Names the method."""
    mask_init: float = 0.0
    """Start value m_0 of each weight's mask parameter. Smaller is sparser."""
    beta_final: Annotated[float, Field(ge=1)] = 200.0
    """Sharpness of the soft mask at the end of each round; it starts at 1."""
    penalty: Annotated[float, Field(ge=0)] = 1e-5
    """Strength of the penalty on the sum of all soft masks. Larger is sparser."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Equal parts of the run; in each, `beta` rises anew, and what was masked can hardly return."""
    rewind: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Part of the first round, in [0, 1), whose end each later round takes its weights from; null
    keeps them as they are."""


class Dst(Options):
    """Dynamic sparse training (Liu et al. 2020). Finds its sparsity."""

    method: Literal["dst"] = "dst"
    """Names the method."""
    penalty: Annotated[float, Field(ge=0)] = 2e-3
    """Strength of the penalty sum(exp(-threshold)). Larger is sparser, until a layer comes down to
    1 % and is reset."""


class RigL(Options):
    """Rigging the lottery (Evci et al. 2020): sparse from the first step."""

    method: Literal["rigl"] = "rigl"
    """Names the method."""
    sparsity: Goal | None = None
    """Goal, in [0, 1); null takes `prune.sparsity`."""
    interval: Interval = 0.003
    """Part of the run between two changes of the connections, in (0, 1]; at least one step. The
    paper's is 100 steps of 32,000."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Part of a layer's connections that the first change replaces (alpha); falls as a cosine."""
    end: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Part of the run after which connections stay, in (0, 1]."""


class AcDc(WithGoal):
    """AC/DC, alternating compressed and decompressed training (Peste et al. 2021)."""

    method: Literal["acdc"] = "acdc"
    """Names the method."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the run that is dense at its beginning, in [0, 1)."""
    phase: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Part of the run that each compressed and each decompressed phase takes, in (0, 1)."""
    end: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Part of the run that is compressed at its end, in (0, 1)."""

    @model_validator(mode="after")
    def _phases_fit(self) -> AcDc:
        if self.warmup + self.end >= 1:
            raise ValueError(
                f"warmup + end must be < 1, got {self.warmup} + {self.end}. The rest of the run is "
                "for the phases between them: write .1 and .15"
            )
        return self


class GraNet(WithGoal):
    """GraNet, gradual pruning with regrowth (Liu et al. 2021)."""

    method: Literal["granet"] = "granet"
    """Names the method."""
    interval: Interval = 0.016
    """Part of the run between two prune steps, in (0, 1]; at least one step. The paper's is 1,000
    steps of 62,560."""
    regrow: Annotated[float, Field(ge=0.005, le=1)] = 0.5
    """Part of a layer's survivors that the first prune step replaces, in [.005, 1]; falls as a
    cosine to .005."""
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.69
    """Part of the run after which the goal is reached, in (0, 1]."""


Sparsify = Annotated[
    Gmp | Gsm | Lc | Dpf | Dnw | Str | Cs | Dst | RigL | AcDc | GraNet,
    Field(discriminator="method"),
]
