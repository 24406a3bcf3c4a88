"""Turned images, and errors that add up."""

import math

import pytest
import torch
from made_training import assert_same, batches_of, counts_of, losses_of_training

from rayprune.models.small_cnn import small_cnn
from rayprune.recipes.regression import regression, turned_images


@pytest.fixture(scope="module")
def data():
    return turned_images(num_train=60, num_test=30)


def test_images_and_degrees(data):
    images, degrees = data["train"]
    assert images.shape == (60, 1, 28, 28) and images.dtype == torch.uint8
    assert degrees.shape == (60,) and degrees.abs().max() <= 45
    assert degrees.std() > 20, "they fill the range"


def test_two_calls_are_equal_and_another_seed_is_not(data):
    assert_same(turned_images(num_train=60, num_test=30), data)
    assert not torch.equal(turned_images(60, 30, seed=1)["train"][1], data["train"][1])


def test_an_image_turned_by_nothing_is_itself():
    images, degrees = turned_images(num_train=5, num_test=1, largest=0.0)["train"]
    assert (degrees == 0).all() and images.float().std() > 10
    turned, _ = turned_images(num_train=5, num_test=1, largest=45.0)["train"]
    assert not torch.equal(images, turned)


def test_metrics_by_hand():
    task = regression(scale=10.0)
    predicted, targets = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([3.0, 10.0, 16.0])
    metrics = task.metrics(task.count(predicted, targets))
    assert metrics["rmse"] == pytest.approx(math.sqrt((9 + 0 + 16) / 3))
    assert metrics["mae"] == pytest.approx(7 / 3)
    assert metrics["loss"] == pytest.approx(25 / 3 / 100)
    assert metrics["loss"] == pytest.approx(float(task.loss(predicted, targets)))
    assert metrics["r2"] == pytest.approx(1 - (25 / 3) / float(targets.var(correction=0)))


def test_the_best_constant_explains_nothing_and_the_truth_all():
    task, targets = regression(), torch.tensor([1.0, 2.0, 6.0])
    constant = task.metrics(task.count(targets.mean().expand(3, 1), targets))
    perfect = task.metrics(task.count(targets[:, None], targets))
    assert constant["r2"] == pytest.approx(0)
    assert perfect["rmse"] == 0 and perfect["r2"] == 1


def test_r2_of_equal_targets_is_no_nan():
    task = regression()
    assert task.metrics(task.count(torch.zeros(3, 1), torch.ones(3)))["r2"] == -math.inf


def test_counts_add_up_and_training_helps(data):
    task, model = regression(scale=30.0), small_cnn(num_classes=1, in_channels=1)
    data = {part: (images.float() / 255, degrees) for part, (images, degrees) in data.items()}
    whole, parts = batches_of(data, "test", 30), batches_of(data, "test", 7)
    torch.testing.assert_close(counts_of(model, task, parts), counts_of(model, task, whole))
    losses = losses_of_training(model, task, batches_of(data, "train", 30), steps=20, lr=0.002)
    assert losses[-1] < 0.7 * losses[0]
