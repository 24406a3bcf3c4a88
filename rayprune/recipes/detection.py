"""The task of torchvision's detectors: their own losses, and average precision.

A detector computes its losses itself, and only while training: `forward` says how it is called.
The network is detector.py, the data shapes.py. Study: tune_configs/recipe_detection.yaml.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rayprune import Task
from rayprune.recipes.shapes import Boxes


def detection(
    num_classes: int, overlap: float = 0.5, score: float = 0.5, num_bins: int = 50
) -> Task:
    """Average precision, its mean over classes; precision, recall and f1 from a `score` on.

    A prediction is a hit when its overlap (intersection over union) with a box of its class is
    `overlap` or more and no better prediction has that box. Scores are counted in bins from 0 to 1,
    so that counts add up; `num_classes` counts the background.
    """
    return Task(
        loss=_loss,
        count=partial(_count, num_classes=num_classes, overlap=overlap, num_bins=num_bins),
        metrics=partial(_metrics, num_classes=num_classes, score=score),
        lower_is_better=(),
        forward=_forward,
    )


def _forward(model: nn.Module, images: list[Tensor], targets: list[Boxes]) -> Any:
    return model(images, targets) if model.training else model(images)


def _loss(losses: dict[str, Tensor], targets: list[Boxes]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _count(
    found: list[Boxes], targets: list[Boxes], *, num_classes: int, overlap: float, num_bins: int
) -> Tensor:
    """For each class hits and false alarms by score, and the number of true boxes, flattened."""
    counts = torch.zeros(num_classes, 2 * num_bins + 1, dtype=torch.float64)
    for image, truth in zip(found, targets, strict=True):
        # Many small steps: quicker where it does not wait for a device each time.
        image, truth = ({k: v.cpu() for k, v in boxes.items()} for boxes in (image, truth))
        bins = (image["scores"] * num_bins).long().clamp(0, num_bins - 1)
        columns = torch.where(hits(image, truth, overlap), bins, num_bins + bins)
        counts.index_put_((image["labels"], columns), counts.new_ones(()), accumulate=True)
        counts[:, -1] += truth["labels"].bincount(minlength=num_classes)
    return counts.flatten().to(targets[0]["boxes"].device)


def hits(found: Boxes, truth: Boxes, overlap: float) -> Tensor:
    """(k,) whether each found box is that of an object; the best score chooses first."""
    from torchvision.ops import box_iou

    is_hit = torch.zeros(len(found["scores"]), dtype=torch.bool)
    overlaps = box_iou(found["boxes"], truth["boxes"])  # (found, truth)
    overlaps[found["labels"][:, None] != truth["labels"]] = 0
    for i in found["scores"].argsort(descending=True, stable=True).tolist():
        if len(truth["labels"]) and overlaps[i].max() >= overlap:
            is_hit[i] = True
            overlaps[:, overlaps[i].argmax()] = 0  # that object is found
    return is_hit


def _metrics(counts: Tensor, *, num_classes: int, score: float) -> dict[str, float]:
    objects = counts.view(num_classes, -1)[1:]  # without the background
    num_true, num_bins = objects[:, -1], (objects.shape[1] - 1) // 2
    by_score = objects[:, :-1].view(-1, 2, num_bins).flip(2).cumsum(2)  # from score 1 down
    num_hits, num_found = by_score[:, 0], by_score.sum(1)
    precision, recall = num_hits / num_found.clamp(min=1), num_hits / num_true.clamp(min=1)[:, None]
    best = precision.flip(1).cummax(1).values.flip(1)  # at this recall or more
    average = (recall.diff(dim=1, prepend=torch.zeros_like(recall[:, :1])) * best).sum(1)
    last = max(num_bins - math.floor(score * num_bins), 1) - 1
    hit, shown, true = num_hits[:, last].sum(), num_found[:, last].sum(), num_true.sum()
    return {
        "average_precision": float(average.sum() / (num_true > 0).sum().clamp(min=1)),
        "precision": float(hit / shown.clamp(min=1)),
        "recall": float(hit / true.clamp(min=1)),
        "f1": float(2 * hit / (shown + true).clamp(min=1)),
    }
