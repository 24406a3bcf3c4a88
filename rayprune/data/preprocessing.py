"""What `auto` stands for in how images are resized."""

from __future__ import annotations

from rayprune import config
from rayprune.config.preprocessing import Preprocessing


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
