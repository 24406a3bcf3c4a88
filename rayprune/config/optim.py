"""The optimiser of every stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rayprune.config.frozen import Frozen

Below1 = Annotated[float, Field(ge=0, lt=1)]

LRS = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
WEIGHT_DECAYS = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.01}
NOT_READ = {"sgd": ("betas", "eps"), "adam": ("momentum",), "adamw": ("momentum",)}


def _by_name(values: dict[str, float]) -> Any:
    return Field(default_factory=lambda given: values[given.get("name", "sgd")])


class Optim(Frozen):
    """torch's SGD (with Nesterov momentum when there is weight decay), Adam or AdamW."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd, adam (decay in the gradient) or adamw (decay beside it)."""
    lr: Annotated[float, Field(gt=0)] = _by_name(LRS)
    """Initial and largest learning rate of the dense run, also of one that was trained elsewhere;
    .1 for sgd and .001 for adam and adamw unless given."""
    momentum: Below1 = 0.9
    """sgd only: momentum, in [0, 1)."""
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    """adam and adamw only: how slowly the two averages forget, in [0, 1)."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """adam and adamw only: what is added to the root of the second average."""
    weight_decay: Annotated[float, Field(ge=0)] = _by_name(WEIGHT_DECAYS)
    """L2 penalty, applied once; 5e-4 for sgd, 0 for adam and .01 for adamw unless given."""
    decay: Literal["all", "weights"] = "all"
    """What decays: all parameters, or only those with two and more dimensions."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients together; a larger one is scaled down to it. Gradients of
    pruned weights do not count."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Exponential moving average of the weights, in (0, 1), such as .999: it is what is measured
    and shipped. It starts anew with each stage, as min(ema_decay, (1 + step) / (10 + step))."""

    @model_validator(mode="after")
    def _reads_what_is_given(self) -> Optim:
        fields = type(self).model_fields
        for field in NOT_READ[self.name]:
            if getattr(self, field) != fields[field].default:
                instead = "betas" if field == "momentum" else "momentum"
                raise ValueError(f"{self.name} has no {field}. Leave it out, or write {instead}")
        return self
