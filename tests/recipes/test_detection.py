"""Boxes that are found, missed and found twice, and a detector that learns to draw them."""

import pytest
import torch
from made_training import assert_same, batches_of, counts_of, losses_of_training

from rayprune.recipes.detection import detection, hits
from rayprune.recipes.detector import detector
from rayprune.recipes.shapes import collate, shapes

TASK = detection(num_classes=3)


def boxes(*rows, labels, scores=None):
    found = {"boxes": torch.tensor(rows).float().view(-1, 4), "labels": torch.tensor(labels).long()}
    return found if scores is None else {**found, "scores": torch.tensor(scores).float()}


A, B, FAR = (0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 60, 60)
TRUTH = boxes(A, B, labels=[1, 2])


@pytest.fixture(scope="module")
def data():
    return shapes(num_train=16, num_test=12)


def metrics(*pairs):
    found, truth = zip(*pairs, strict=True)
    return TASK.metrics(TASK.count(list(found), list(truth)))


def test_shapes_lie_in_their_boxes_and_boxes_in_their_images(data):
    for image, target in data["train"]:
        assert min(image.shape[1:]) >= 48 and max(image.shape[1:]) <= 80
        assert image.min() >= 0 and image.max() <= 1
        height, width = image.shape[1:]
        assert 1 <= len(target["boxes"]) == len(target["labels"]) <= 3
        for (x1, y1, x2, y2), label in zip(target["boxes"].int(), target["labels"], strict=True):
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and label in (1, 2)
            middle = image[:, (y1 + y2) // 2, (x1 + x2) // 2]
            assert (middle >= 0.3).all(), "a shape is brighter than the noise's mean"


def test_two_calls_are_equal_and_sizes_differ(data):
    again = shapes(num_train=16, num_test=12)
    assert_same([again["train"], again["test"]], [data["train"], data["test"]])
    images, targets = collate(data["train"])
    assert len({image.shape for image in images}) > 1 and len(images) == len(targets) == 16


def test_perfect_predictions():
    perfect = {**TRUTH, "scores": torch.tensor([0.9, 0.7])}
    assert metrics((perfect, TRUTH)) == dict.fromkeys(
        ("average_precision", "precision", "recall", "f1"), 1.0
    )


def test_nothing_found_is_zero_and_no_nan():
    nothing = boxes(labels=[], scores=[])
    assert set(metrics((nothing, TRUTH)).values()) == {0.0}
    assert set(metrics((nothing, boxes(labels=[]))).values()) == {0.0}
    false_alarm = boxes(FAR, labels=[1], scores=[0.9])
    assert set(metrics((false_alarm, boxes(labels=[]))).values()) == {0.0}


def test_an_object_is_found_once_by_the_best_score_of_its_class():
    found = boxes(A, A, A, B, labels=[1, 1, 2, 2], scores=[0.6, 0.8, 0.9, 0.7])
    assert hits(found, TRUTH, 0.5).tolist() == [False, True, False, True]


def test_a_box_that_overlaps_too_little_is_a_false_alarm_and_a_miss():
    half = boxes((0, 0, 10, 4), labels=[1], scores=[0.9])  # overlap .4
    assert hits(half, TRUTH, 0.5).tolist() == [False]
    assert hits(half, TRUTH, 0.4).tolist() == [True]
    found = metrics((half, TRUTH))
    assert found["precision"] == found["recall"] == found["f1"] == 0


def test_precision_recall_and_f1_by_hand():
    found = metrics((boxes(A, FAR, B, labels=[1, 1, 2], scores=[0.9, 0.8, 0.2]), TRUTH))
    assert found["precision"] == 0.5 and found["recall"] == 0.5 and found["f1"] == 0.5
    assert found["average_precision"] == 1.0, "each class has its object before any false alarm"


def test_average_precision_by_hand():
    truth = boxes(A, B, labels=[1, 1])
    found = boxes(A, FAR, B, labels=[1, 1, 1], scores=[0.9, 0.8, 0.7])
    # recall .5 at precision 1, then recall 1 at precision 2/3
    assert metrics((found, truth))["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.fixture(scope="module")
def trained(data):
    torch.manual_seed(0)
    model = detector(num_classes=3)
    batches = batches_of(data, "train", 8)
    return model, losses_of_training(model, TASK, batches, steps=16, lr=0.002)


def test_training_helps(trained):
    _, losses = trained
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_counts_add_up(trained, data):
    """On boxes near the true ones: those of a weak detector move with the padding of a batch."""
    generator = torch.Generator().manual_seed(0)
    targets = [target for _, target in data["test"]]
    found = [
        {
            **target,
            "boxes": target["boxes"] + 4 * torch.randn(target["boxes"].shape, generator=generator),
            "scores": torch.rand(len(target["labels"]), generator=generator),
        }
        for target in targets
    ]
    parts = sum(TASK.count(found[i : i + 5], targets[i : i + 5]) for i in range(0, 12, 5))
    assert_same(parts, TASK.count(found, targets))
    assert parts.dtype == torch.float64


def test_it_is_called_with_targets_only_while_training(trained, data):
    model, _ = trained
    [batch] = batches_of(data, "test", 12)
    assert isinstance(TASK.forward(model.train(), *batch), dict)
    found = TASK.forward(model.eval(), *batch)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 12
    assert counts_of(model, TASK, [batch]).view(3, -1)[:, -1].sum() == sum(
        len(target["labels"]) for target in batch[1]
    )


def test_weights_of_other_classes_and_of_another_network(tmp_path):
    torch.manual_seed(0)
    trained = detector(num_classes=5)
    torch.save(trained.state_dict(), tmp_path / "five.pt")
    model = detector(num_classes=3, weights=str(tmp_path / "five.pt"))
    assert_same(model.state_dict()["backbone.0.weight"], trained.state_dict()["backbone.0.weight"])
    assert model.roi_heads.box_predictor.cls_score.out_features == 3
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not fit"):
        detector(num_classes=3, weights=str(tmp_path / "other.pt"))
    wide = {**trained.state_dict(), "roi_heads.box_head.fc6.weight": torch.zeros(2, 2)}
    torch.save(wide, tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="box_head"):
        detector(num_classes=5, weights=str(tmp_path / "wide.pt"))
