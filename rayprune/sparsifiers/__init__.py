"""Methods that sparsify during the dense training: one small file a method.

``make_sparsifier`` builds the one that ``dense.sparsify`` names; ``base.py`` says when the training
loop calls what; ``fixed.py`` is what all other stages train with.
"""

from __future__ import annotations

from torch import nn

from rayprune.config.sparsify import Options
from rayprune.pruning.masks import Masks
from rayprune.sparsifiers.acdc import AlternatingCompression
from rayprune.sparsifiers.base import Sparsifier
from rayprune.sparsifiers.cs import ContinuousSparsification
from rayprune.sparsifiers.dnw import DiscoveringNeuralWirings
from rayprune.sparsifiers.dpf import DynamicPruningWithFeedback
from rayprune.sparsifiers.dst import DynamicSparseTraining
from rayprune.sparsifiers.fixed import FixedMasks
from rayprune.sparsifiers.gmp import GradualMagnitudePruning
from rayprune.sparsifiers.granet import GradualPruningWithRegrowth
from rayprune.sparsifiers.gsm import GlobalSparseMomentum
from rayprune.sparsifiers.lc import LearningCompression
from rayprune.sparsifiers.rigl import RiggedLottery
from rayprune.sparsifiers.str import SoftThresholdReparametrization

METHODS: dict[str, type[Sparsifier]] = {
    "gmp": GradualMagnitudePruning,
    "gsm": GlobalSparseMomentum,
    "lc": LearningCompression,
    "dpf": DynamicPruningWithFeedback,
    "dnw": DiscoveringNeuralWirings,
    "str": SoftThresholdReparametrization,
    "cs": ContinuousSparsification,
    "dst": DynamicSparseTraining,
    "rigl": RiggedLottery,
    "acdc": AlternatingCompression,
    "granet": GradualPruningWithRegrowth,
}
__all__ = ["METHODS", "FixedMasks", "Sparsifier", "make_sparsifier"]


def make_sparsifier(
    options: Options,
    model: nn.Module,
    masks: Masks,
    *,
    sparsity: float,
    num_steps: int,
    weight_decay: float,
    seed: int,
    decoupled_decay: bool = False,
) -> Sparsifier:
    """Start the method that `options` names, on a model that is on its device and not wrapped.

    `masks` names the prunable weights. `sparsity`, in [0, 1), is the goal; methods that find their
    own do not read it. `num_steps` counts the whole stage; `weight_decay` is the optimiser's, and
    `decoupled_decay` whether it works beside the gradient, as in AdamW.
    """
    return METHODS[options.method](
        options,
        model,
        masks,
        sparsity=sparsity,
        num_steps=num_steps,
        weight_decay=weight_decay,
        seed=seed,
        decoupled_decay=decoupled_decay,
    )
