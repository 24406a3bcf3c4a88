"""What a network was trained with, so that its images may be made alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]


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
