"""Which network, and where its trained weights are."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from rayprune.config.frozen import Frozen


class Model(Frozen):
    """Which network. Exactly one of `name` and `target`."""

    name: str | None = None
    """One of ours (small_cnn, resnet20 …), a torchvision classification model, or timm/<name>."""
    target: str | None = None
    """`package.module:function` that returns an nn.Module."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the builder."""
    weights: str | None = None
    """Trained weights: a .safetensors, .pt or .pth file, a folder of ours (best/ or dense/), or the
    name of an entry of torchvision's or timm's (DEFAULT) whose file is on this machine. A target
    whose function takes `weights` gets the path and loads them itself."""
    weights_key: str | None = None
    """Which state_dict of a file that holds several, such as state_dict_ema."""
    new_head: bool = False
    """Whether a head for another number of classes than the data has starts fresh; else it is an
    error."""

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.name is None) == (self.target is None):
            raise ValueError("takes exactly one of name and target. Write {name: small_cnn}")
        return self

    @model_validator(mode="after")
    def _words_of_weights_have_some(self) -> Model:
        if self.weights is None and (self.weights_key is not None or self.new_head):
            field = "weights_key" if self.weights_key is not None else "new_head"
            raise ValueError(f"{field} says how to take weights, got none. Add weights: FILE")
        return self
