"""What a model is asked for: a task names its loss and its metrics.

A task counts over batches into one float64 vector, which ranks add up, and reads metrics off it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rayprune.data import IGNORED_PIXEL


@dataclass(frozen=True)
class Task:
    """Loss and metrics of one kind of problem."""

    loss: Callable[[Any, Tensor], Tensor]
    """(model output, targets) -> mean loss, a scalar."""
    count: Callable[[Any, Tensor], Tensor]
    """(model output, targets) -> (k,) float64 counts that add up over batches and ranks."""
    metrics: Callable[[Tensor], dict[str, float]]
    """Counts -> metrics by name; `loss` and `accuracy` are always there."""


def _classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels)


def _classification_count(logits: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(logits.float(), labels, reduction="sum")
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack(
        [loss.double(), correct.double(), torch.ones_like(correct).double() * len(labels)]
    )


def _classification_metrics(counts: Tensor) -> dict[str, float]:
    loss, correct, num = counts.tolist()
    return {"loss": loss / num, "accuracy": correct / num}


def _pixels(output: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Torchvision's segmentation models return a dict; plain ones the scores themselves."""
    return (output if isinstance(output, Tensor) else output["out"]).float()


def _segmentation_loss(output: Any, targets: Tensor) -> Tensor:
    return F.cross_entropy(_pixels(output), targets, ignore_index=IGNORED_PIXEL)


def _segmentation_count(output: Any, targets: Tensor) -> Tensor:
    """The summed loss, then the confusion matrix, rows = truth."""
    scores = _pixels(output)  # (n, classes, height, width)
    loss = F.cross_entropy(scores, targets, ignore_index=IGNORED_PIXEL, reduction="sum")
    classes = scores.shape[1]
    valid = targets != IGNORED_PIXEL
    pairs = targets[valid] * classes + scores.argmax(1)[valid]
    confusion = torch.bincount(pairs, minlength=classes**2)
    return torch.cat([loss.double()[None], confusion.double()])


def _segmentation_metrics(counts: Tensor) -> dict[str, float]:
    confusion = counts[1:].view(round((len(counts) - 1) ** 0.5), -1)
    hits, union = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
    seen = union > 0  # a class that is neither there nor predicted has no overlap to measure
    num_pixels = confusion.sum()
    return {
        "loss": float(counts[0] / num_pixels),
        "accuracy": float(hits.sum() / num_pixels),
        "mean_iou": float((hits[seen] / union[seen]).mean()),
    }


TASKS = {
    "classification": Task(_classification_loss, _classification_count, _classification_metrics),
    "segmentation": Task(_segmentation_loss, _segmentation_count, _segmentation_metrics),
}
