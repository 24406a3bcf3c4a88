"""Networks: ours for small images, torchvision's and timm's by name, and any function's."""

from rayprune.models.build import build_model, check_model, check_weights

__all__ = ["build_model", "check_model", "check_weights"]
