"""A detector of torchvision's by name, or a tiny one; its task is detection.py."""

from __future__ import annotations

from typing import Any

from torch import nn


def detector(num_classes: int, name: str | None = None, **options: Any) -> nn.Module:
    """torchvision's detector `name`, such as fasterrcnn_mobilenet_v3_large_320_fpn, or a tiny one.

    `num_classes` counts the background. Nothing is downloaded: weights are random, or those of the
    file that model.weights names.
    """
    from torchvision import models, ops

    if name is not None:
        given = {"weights": None, "weights_backbone": None, "num_classes": num_classes}
        return getattr(models.detection, name)(**{**given, **options})
    rcnn = models.detection.faster_rcnn
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
