"""Metrics counted in parts equal metrics of the whole, and a case done by hand."""

import pytest
import torch

from rayprune.training.task import TASKS


def test_classification_by_hand():
    task = TASKS["classification"]
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    labels = torch.tensor([0, 1, 0])
    metrics = task.metrics(task.count(logits, labels))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx(float(task.loss(logits, labels)))


def test_mean_iou_by_hand():
    task = TASKS["segmentation"]
    truth = torch.tensor([[[0, 0, 1, 255]]])
    scores = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 0]]]), 3)
    scores = scores.permute(0, 3, 1, 2).float() * 50
    metrics = task.metrics(task.count({"out": scores}, truth))
    assert metrics["mean_iou"] == pytest.approx((1 / 2 + 1 / 2) / 2)  # the third class is nowhere
    assert metrics["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", TASKS)
def test_counts_add_up(name):
    task = TASKS[name]
    generator = torch.Generator().manual_seed(0)
    shape = (12, 5) if name == "classification" else (12, 5, 3, 3)
    output = torch.randn(shape, generator=generator)
    targets = torch.randint(5, (12, *shape[2:]), generator=generator)
    whole = task.metrics(task.count(output, targets))
    halves = task.count(output[:7], targets[:7]) + task.count(output[7:], targets[7:])
    assert task.metrics(halves) == pytest.approx(whole)
    assert whole["loss"] == pytest.approx(float(task.loss(output, targets)), rel=1e-5)
