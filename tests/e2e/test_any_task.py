"""Tasks of all kinds from end to end: trained, pruned to 80 %, retrained, with recipes' parts."""

import pytest
import torch
import torch.nn.functional as F
from made_transformers import save_transformer, write_texts
from torch import nn

from rayprune import Task
from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker

RECIPES = "rayprune.recipes"


@pytest.fixture
def run(tmp_path):
    """Runs an experiment of 80 % and returns its snapshot, once its zeros are where masks are."""

    def run(**fields):
        experiment = Experiment.model_validate(
            {
                "optim": {"name": "adamw", "lr": 0.002},
                "retrain": {"epochs": 1, "schedule": "linear", "lr": 0.002},
                **fields,
                "data": {"loader_workers": 0, **fields["data"]},
                "prune": {"sparsity": 0.8, **fields.get("prune", {})},
            }
        )
        snapshot = run_plan(experiment, make_plan(experiment), Worker(), str(tmp_path))
        assert num_pruned(snapshot.masks) == round(0.8 * num_weights(snapshot.masks))
        for name, mask in snapshot.masks.items():
            assert torch.equal(snapshot.weights[name] != 0, mask), name
        assert all(0 < record.flops_nonzero <= record.flops for record in snapshot.records)
        assert snapshot.records[-1].theoretical_speedup > 1
        return snapshot

    return run


def metrics_of(snapshot):
    """Of the dense network and of the retrained one."""
    dense, last = snapshot.records
    return dense.metrics, last.metrics


def test_regression(run):
    dense, last = metrics_of(
        run(
            task={"target": f"{RECIPES}.regression:regression", "kwargs": {"scale": 30.0}},
            model={
                "target": "rayprune.models.small_cnn:small_cnn",
                "kwargs": {"num_classes": 1},
            },
            data={
                "target": f"{RECIPES}.regression:turned_images",
                "kwargs": {"num_train": 2000, "num_test": 200},
            },
            batch_size=50,
            dense={"epochs": 2},
            prune={"allocation": "uniform"},
        )
    )
    assert dense["test_rmse"] < 20, "26 is what 0 for all images gives"
    assert last["test_rmse"] < 20 and last["test_r2"] > 0.3
    assert last["pruned_val_loss"] > last["val_loss"]


def test_text(run):
    dense, last = metrics_of(
        run(
            model={"target": f"{RECIPES}.text:classifier", "kwargs": {"width": 32}},
            data={
                "target": f"{RECIPES}.text:snippets",
                "kwargs": {"num_train": 600, "num_test": 200},
            },
            batch_size=20,
            optim={"name": "adamw", "lr": 0.005},
            dense={"epochs": 2},
        )
    )
    assert dense["test_accuracy"] > 0.35 and last["test_accuracy"] > 0.35, "chance is a fifth"


def test_a_language_model(run):
    snapshot = run(
        task={"target": f"{RECIPES}.language_model:language_modelling"},
        model={"target": f"{RECIPES}.language_model:transformer", "kwargs": {"width": 32}},
        data={
            "target": f"{RECIPES}.language_model:passages",
            "kwargs": {"num_train": 600, "num_test": 100},
        },
        batch_size=10,
        optim={"name": "adamw", "lr": 0.005},
        dense={"epochs": 2},
    )
    dense, last = metrics_of(snapshot)
    assert 1 < dense["test_perplexity"] < 25, "257 tokens"
    assert 1 < last["test_perplexity"] < 25
    assert not {"tokens.weight", "places.weight"} & set(snapshot.masks), "embeddings stay whole"


def test_detection(run):
    dense, last = metrics_of(
        run(
            task={"target": f"{RECIPES}.detection:detection", "kwargs": {"num_classes": 3}},
            model={"target": f"{RECIPES}.detector:detector"},
            data={
                "target": f"{RECIPES}.shapes:shapes",
                "kwargs": {"num_train": 120, "num_test": 20},
            },
            batch_size=8,
            dense={"epochs": 4},
        )
    )
    assert dense["test_average_precision"] > 0.2
    assert last["test_average_precision"] > 0.1
    assert "test_loss" not in last, "a detector has none in evaluation"


def sorted_pairs(num_train=96):
    """Two tensors as inputs, by name, and two targets for them."""
    generator = torch.Generator().manual_seed(0)

    def part(num):
        a, b = torch.randn(2, num, 8, generator=generator)
        return {"a": a, "b": b}, {"is_more": (a.sum(1) > b.sum(1)).long(), "sum": (a + b).sum(1)}

    return {"train": part(num_train), "test": part(50)}


class TwoHeads(nn.Module):
    """Reads `a` and `b` by name; returns what the two targets are."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(16, 64)
        self.is_more, self.sum = nn.Linear(64, 2), nn.Linear(64, 1)

    def forward(self, a, b):
        features = self.body(torch.cat([a, b], 1)).relu()
        return {"is_more": self.is_more(features), "sum": self.sum(features)[:, 0]}


def _two_losses(output, targets):
    return F.cross_entropy(output["is_more"], targets["is_more"]) + F.mse_loss(
        output["sum"], targets["sum"]
    )


def _two_counts(output, targets):
    right = (output["is_more"].argmax(1) == targets["is_more"]).double()
    return torch.stack(
        [right.sum(), ((output["sum"] - targets["sum"]) ** 2).sum(), right.new_tensor(len(right))]
    )


two_tasks = Task(
    _two_losses,
    _two_counts,
    lambda counts: {
        "accuracy": float(counts[0] / counts[2]),
        "rmse": float((counts[1] / counts[2]).sqrt()),
    },
    lower_is_better=("rmse",),
)


def test_two_inputs_by_name_and_two_targets(run):
    dense, last = metrics_of(
        run(
            task={"target": f"{__name__}:two_tasks"},
            model={"target": f"{__name__}:TwoHeads"},
            data={"target": f"{__name__}:sorted_pairs", "kwargs": {"num_train": 500}},
            batch_size=10,
            dense={"epochs": 4},
            retrain={"epochs": 4, "schedule": "linear", "lr": 0.004},
            prune={"allocation": "uniform"},
        )
    )
    assert dense["test_accuracy"] > 0.7 and last["test_accuracy"] > 0.7
    assert last["test_rmse"] < 4, "0 for all is wrong by 4"


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("bert", ["bert.encoder.layer.0.attention.self.query.weight", "classifier.weight"]),
        ("gpt2", ["transformer.h.0.attn.c_attn.weight", "score.weight"]),
    ],
)
def test_a_transformer_of_hugging_face(run, tmp_path, kind, weights):
    pytest.importorskip("transformers")
    folder = save_transformer(tmp_path / kind, kind)
    files = write_texts(tmp_path)
    include = {"include": ["*.c_attn.weight", "*.c_proj.weight", "*.c_fc.weight"]}
    snapshot = run(
        model={"target": f"{RECIPES}.hugging_face:classifier", "weights": folder},
        data={"target": f"{RECIPES}.hugging_face:texts", "kwargs": {**files, "tokenizer": folder}},
        batch_size=10,
        dense={"epochs": 2},
        prune=include if kind == "gpt2" else {},
    )
    dense, last = metrics_of(snapshot)
    assert set(weights) <= set(snapshot.masks)
    assert not any("embeddings" in name or "wte" in name for name in snapshot.masks)
    assert dense["test_accuracy"] > 0.8 and last["test_accuracy"] > 0.8, "chance is a half"


@pytest.mark.slow
def test_a_detector_of_torchvision_by_name(run, tmp_path):
    """It starts from a file of weights for other classes."""
    from rayprune.recipes.detector import detector

    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    torch.save(detector(num_classes=91, name=name).state_dict(), tmp_path / "coco.pt")
    snapshot = run(
        task={"target": f"{RECIPES}.detection:detection", "kwargs": {"num_classes": 3}},
        model={
            "target": f"{RECIPES}.detector:detector",
            "kwargs": {"name": name},
            "weights": str(tmp_path / "coco.pt"),
        },
        data={"target": f"{RECIPES}.shapes:shapes", "kwargs": {"num_train": 16, "num_test": 4}},
        batch_size=4,
        dense={"epochs": 1},
    )
    assert snapshot.weights["roi_heads.box_predictor.cls_score.weight"].shape == (3, 1024)
