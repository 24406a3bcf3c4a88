"""A torchvision ResNet-50 at 224 pixels through plan, prune, retraining, snapshot and reload."""

import json

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from rayprune.config import Experiment
from rayprune.exporting.model_files import write_model
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned, num_weights
from rayprune.results.stages import finished_records, load_content
from rayprune.snapshot import decode, encode
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker

pytestmark = pytest.mark.slow

NUM_PRUNABLE = 25_502_912
NUM_PRUNED = round(0.9 * NUM_PRUNABLE)


def few_large_images():
    """Eight training images, two to validate and two to test, of ImageNet's size and classes."""
    generator = torch.Generator().manual_seed(0)

    def images(num):
        pixels = torch.randint(256, (num, 3, 224, 224), dtype=torch.uint8, generator=generator)
        return pixels, torch.arange(num)

    classes = [f"class {number}" for number in range(1000)]
    return {"train": images(8), "val": images(2), "test": images(2), "classes": classes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The experiment, its storage, and its last snapshot."""
    storage = str(tmp_path_factory.mktemp("resnet50"))
    experiment = Experiment.model_validate(
        {
            "model": {"name": "resnet50"},
            "data": {"target": f"{__name__}:few_large_images"},
            "batch_size": 4,
            "optim": {"lr": 0.01},
            "dense": {"epochs": 1},
            "prune": {"sparsity": 0.9},
            "retrain": {"epochs": 1},
        }
    )
    return experiment, storage, run_plan(experiment, make_plan(experiment), Worker(), storage)


def test_exactly_nine_tenths_of_the_weights_are_zero(finished):
    _, _, snapshot = finished
    assert num_weights(snapshot.masks) == NUM_PRUNABLE
    assert num_pruned(snapshot.masks) == NUM_PRUNED
    zeros = sum(int((snapshot.weights[name] == 0).sum()) for name in snapshot.masks)
    assert zeros == NUM_PRUNED
    first, last = snapshot.records
    assert (first.num_parameters, first.num_nonzero) == (25_557_032, 25_557_032)
    assert last.num_nonzero == 25_557_032 - NUM_PRUNED
    assert last.flops == 4_089_184_256
    assert last.sparsity == NUM_PRUNED / NUM_PRUNABLE
    assert 0 < last.d1 < 1 and last.d2 == 1


def test_what_was_kept_comes_back_bit_for_bit(finished):
    experiment, storage, snapshot = finished
    key = make_plan(experiment)[-1].key
    content = load_content(storage, key)
    assert content is not None
    back = decode(content)
    assert list(back.weights) == list(snapshot.weights)
    assert all(torch.equal(back.weights[name], w) for name, w in snapshot.weights.items())
    assert all(torch.equal(back.masks[name], m) for name, m in snapshot.masks.items())
    assert back.records == snapshot.records == finished_records(storage, key)
    assert encode(back) == content
    assert len(content) < 0.15 * 4 * NUM_PRUNABLE, "survivors and one bit a weight"


def test_the_written_model_is_a_plain_resnet50(finished, tmp_path):
    experiment, _, snapshot = finished
    write_model(snapshot, experiment, str(tmp_path), {"study": "test"})
    weights = load_file(tmp_path / "model.safetensors")
    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(weights, strict=True)
    assert all(torch.equal(weights[name], w) for name, w in snapshot.weights.items())
    convolutions = [m.weight for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(int((w == 0).sum()) for w in [*convolutions, model.fc.weight]) == NUM_PRUNED
    layers = json.loads((tmp_path / "provenance.json").read_text())["layers"]
    assert [layer["name"] for layer in layers] == list(snapshot.masks)
