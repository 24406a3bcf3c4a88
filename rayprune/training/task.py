"""What a model is asked for: a task names its loss and its metrics.

A task counts over batches into one float64 vector, which ranks add up, and reads metrics off it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayprune.config import OwnTask
from rayprune.config.task import AnyTask, find_task
from rayprune.data import IGNORED_PIXEL


def call_model(model: nn.Module, inputs: Any, targets: Any) -> Any:
    """`model(**inputs)` of a dictionary, `model(*inputs)` of a tuple, else `model(inputs)`."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@dataclass(frozen=True)
class Task:
    """Loss and metrics of one kind of problem.

    Inputs and targets are a batch as the data has it: tensors of any shape and type, or lists,
    tuples and dictionaries of them. They, and what the model returns, are on the worker's device.
    """

    loss: Callable[[Any, Any], Tensor]
    """(model output, targets) -> mean loss over the batch, a scalar with a gradient."""
    count: Callable[[Any, Any], Tensor]
    """(model output in evaluation mode, targets) -> (k,) float64 counts that add up over batches
    and ranks; k is the same for all batches."""
    metrics: Callable[[Tensor], Mapping[str, float]]
    """Sum of all counts -> metrics by name; `loss` should be one of them."""
    lower_is_better: Collection[str] = ("loss",)
    """Names of the metrics of which less is better, `loss` always among them; of all others more
    is."""
    forward: Callable[[nn.Module, Any, Any], Any] = call_model
    """(model, inputs, targets) -> model output. `model.training` says which of the two it is for:
    a detector takes targets in training alone."""
    find_unused_parameters: bool = False
    """Whether it depends on the batch which parameters the loss reaches, as with experts that only
    some inputs go to. Parameters that no batch reaches are found without it."""
    name: str = "the task"
    """What messages call it."""


def make_task(task: AnyTask, *, label_smoothing: float = 0.0) -> Task:
    """One of ours by name, or the user's. Raises ``ValueError`` for what is no `Task`."""
    if not isinstance(task, OwnTask):
        loss = partial(LOSSES[task], label_smoothing=label_smoothing)
        return replace(TASKS[task], loss=loss)
    made = find_task(task)
    if not isinstance(made, Task):
        raise ValueError(
            f"experiment.task.target must be a rayprune.Task or return one, got "
            f"{type(made).__name__} of {task.target!r}"
        )
    return replace(made, name=f"task {task.target}")


def scores_of(output: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The class scores: plain ones, `out` of torchvision's models, `logits` of Hugging Face's."""
    if isinstance(output, Mapping):
        output = output["logits"] if "logits" in output else output["out"]
    return output.float()


def _classification_loss(output: Any, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(scores_of(output), labels, label_smoothing=label_smoothing)


def _classification_count(output: Any, labels: Tensor) -> Tensor:
    scores = scores_of(output)
    loss = F.cross_entropy(scores, labels, reduction="sum")
    correct = (scores.argmax(1) == labels).sum()
    return torch.stack(
        [loss.double(), correct.double(), torch.ones_like(correct).double() * len(labels)]
    )


def _classification_metrics(counts: Tensor) -> dict[str, float]:
    loss, correct, num = counts.tolist()
    return {"loss": loss / num, "accuracy": correct / num}


def _segmentation_loss(output: Any, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    scores = scores_of(output)
    return F.cross_entropy(
        scores, targets, ignore_index=IGNORED_PIXEL, label_smoothing=label_smoothing
    )


def _segmentation_count(output: Any, targets: Tensor) -> Tensor:
    """The summed loss, then the confusion matrix, rows = truth."""
    scores = scores_of(output)  # (n, classes, height, width)
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


LOSSES: dict[str, Callable[..., Tensor]] = {
    "classification": _classification_loss,
    "segmentation": _segmentation_loss,
}
TASKS = {
    "classification": Task(_classification_loss, _classification_count, _classification_metrics),
    "segmentation": Task(_segmentation_loss, _segmentation_count, _segmentation_metrics),
}
