"""A detector of torchvision's by name, or a tiny one; its task is detection.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


def detector(
    num_classes: int, weights: str | None = None, name: str | None = None, **options: Any
) -> nn.Module:
    """torchvision's detector `name`, such as fasterrcnn_mobilenet_v3_large_320_fpn, or a tiny one.

    `num_classes` counts the background. Nothing is downloaded: weights are random, or those of a
    file or folder of yours, `model.weights`, whose last layers may be of other classes.
    """
    from torchvision.models import detection

    if name is None:
        model = _tiny(num_classes, options)
    else:
        given = {"weights": None, "weights_backbone": None, "num_classes": num_classes}
        model = getattr(detection, name)(**{**given, **options})
    if weights is not None:
        _load_(model, Path(weights).expanduser())
    return model


def _tiny(num_classes: int, options: dict[str, Any]) -> nn.Module:
    """Faster R-CNN over three convolutions, for objects of about 10 to 30 pixels."""
    from torchvision import ops
    from torchvision.models.detection import faster_rcnn as rcnn

    given = {
        "rpn_anchor_generator": rcnn.AnchorGenerator(sizes=((12, 20),), aspect_ratios=((1.0,),)),
        "box_roi_pool": ops.MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2),
        "box_head": rcnn.TwoMLPHead(64 * 5 * 5, 64),
        "box_predictor": rcnn.FastRCNNPredictor(64, num_classes),
        "min_size": 64,  # pixels of the shorter side that images are brought to
        "rpn_post_nms_top_n_train": 50,  # candidates of an image; thousands for photographs
        "rpn_post_nms_top_n_test": 20,
        "box_batch_size_per_image": 32,
    }
    return rcnn.FasterRCNN(_backbone(64), **{**given, **options})


def _backbone(width: int) -> nn.Module:
    """Images to a map of an eighth of their sides."""
    layers: list[nn.Module] = []
    for before, after in ((3, width // 4), (width // 4, width // 2), (width // 2, width)):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers += [convolution, nn.GroupNorm(4, after), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = width  # type: ignore[assignment]  # what detectors ask for
    return backbone


def _load_(model: nn.Module, path: Path) -> None:
    """Weights of a file; the last layers start fresh where they are of other classes.

    They have several rows for each class, which rayprune's own `new_head` does not know of.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    is_safe = file.suffix == ".safetensors"
    given = load_file(file) if is_safe else torch.load(file, map_location="cpu", weights_only=True)
    fresh = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if key in given and given[key].shape != tensor.shape
    }
    inner = [
        key
        for key in fresh
        if not any(part in key for part in ("predictor", "classification_head"))
    ]
    if inner:
        raise ValueError(f"experiment.model.weights: {file} has other shapes of {', '.join(inner)}")
    try:
        model.load_state_dict({**given, **fresh})
    except RuntimeError as error:  # names that are missing or unknown
        raise ValueError(f"experiment.model.weights: {file} does not fit: {error}") from error
