"""Networks: ours for small images, torchvision's and timm's by name, and any function's."""

from rayprune.models.build import build_model, check_model, check_weights
from rayprune.models.ours import brought_masks, read_masks
from rayprune.models.trained import trained_preprocessing

__all__ = [
    "brought_masks",
    "build_model",
    "check_model",
    "check_weights",
    "read_masks",
    "trained_preprocessing",
]
