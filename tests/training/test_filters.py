"""Filter pruning from the prune step to a smaller network with the same outputs."""

import re

import pytest
import torch

from rayprune.config import Experiment
from rayprune.models import build_model
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_weights
from rayprune.pruning.structured import remove_filters
from rayprune.training import run as running
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("small_cnn", {"ignore": ["fc*"]}),
        ("resnet20", {"ignore": ["fc"]}),
        ("resnet20", {"ignore": ["fc"], "couple_filters": True, "round_channels": 8}),
    ],
)
def test_trained_filters_are_removed_for_real_with_equal_outputs(name, how, few_images, tmp_path):
    pytest.importorskip("torch_pruning")
    experiment = Experiment.model_validate(
        {
            "model": {"name": name},
            "data": {"parquet": few_images},
            "batch_size": 180,
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.5, "pattern": "filter", **how},
            "retrain": {"epochs": 1, "schedule": "llr"},
        }
    )
    snapshot = run_plan(experiment, make_plan(experiment), Worker(), str(tmp_path))
    model = build_model(name, num_classes=10, in_channels=1)
    model.load_state_dict(dict(snapshot.weights))
    images = torch.rand(4, 1, 28, 28)
    smaller = remove_filters(model.eval(), snapshot.masks, images[:1])
    with torch.inference_mode():
        torch.testing.assert_close(smaller.eval()(images), model(images), rtol=1e-4, atol=1e-5)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (smaller, model)]
    assert sizes[0] < sizes[1] - 0.2 * num_weights(snapshot.masks) * 0.5
    counted = snapshot.records[-1].num_nonzero
    assert counted <= sizes[0]  # a filter of a sum that lives on stays, as zeros that do not count
    if name == "small_cnn" or experiment.prune.couple_filters:
        assert counted == sizes[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("torch-pruning cannot read it"), "read it. Write prune.couple_filters: false"),
        (ImportError("needs it. Run: pip"), "prune.couple_filters: needs it. Run: pip"),
    ],
)
def test_a_network_whose_channels_cannot_be_followed_is_told(
    error, message, few_images, tmp_path, monkeypatch
):
    def fail(*_):
        raise error

    monkeypatch.setattr(running, "coupled_filters", fail)
    experiment = Experiment.model_validate(
        {
            "data": {"parquet": few_images},
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.02, "pattern": "filter", "couple_filters": True},
            "retrain": {"epochs": 0},
        }
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        run_plan(experiment, make_plan(experiment), Worker(), str(tmp_path))


def test_inputs_that_are_no_tensor_are_told_the_one_remedy_that_helps(
    few_images, tmp_path, monkeypatch
):
    def several(_):
        raise ValueError("must take one tensor then, got dict. Write prune.pattern: unstructured")

    monkeypatch.setattr(running, "channel_example", several)
    experiment = Experiment.model_validate(
        {
            "data": {"parquet": few_images},
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.02, "pattern": "filter", "couple_filters": True},
            "retrain": {"epochs": 0},
        }
    )
    with pytest.raises(ValueError, match=r"got dict\. Write prune\.pattern: unstructured$"):
        run_plan(experiment, make_plan(experiment), Worker(), str(tmp_path))
