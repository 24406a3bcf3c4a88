"""What a network was trained with, so that its images may be made alike."""

from __future__ import annotations

from dataclasses import dataclass

from rayprune import config
from rayprune.data.augment import Interpolation


@dataclass(frozen=True)
class Preprocessing:
    """How images became inputs where a network was trained."""

    mean: tuple[float, ...]
    """Of each channel, of levels from 0 to 1."""
    std: tuple[float, ...]
    """Of each channel, of levels from 0 to 1."""
    size: int | None = None
    """Side length in pixels."""
    crop: float | None = None
    """Part of the shorter side that evaluation keeps, in (0, 1]."""
    interpolation: Interpolation = "bilinear"


def with_size(data: config.Data, trained: Preprocessing | None) -> config.Data:
    """The data with what `auto` stands for in how images are resized, where it is known.

    Raises a ``ValueError`` for `resize: auto` without a known size.
    """
    if data.resize is None:
        return data
    update: dict[str, object] = {}
    if data.resize == "auto":
        if trained is None or trained.size is None:
            raise ValueError(
                "experiment.data.resize: auto takes the size that the weights were trained with, "
                "and nothing says it. Write resize: 224"
            )
        update["resize"] = trained.size
    if trained is not None:
        if data.eval_crop == "auto" and trained.crop is not None:
            update["eval_crop"] = trained.crop
        if data.interpolation == "auto":
            update["interpolation"] = trained.interpolation
    return data.model_copy(update=update)
