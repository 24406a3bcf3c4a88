"""Vision transformers: linear layers are pruned, norms and embeddings never."""

import pytest
import torch
from torch import nn

from rayprune.config import Experiment
from rayprune.models import build_model
from rayprune.plan import make_plan
from rayprune.pruning.masks import num_pruned, num_weights, prunable
from rayprune.training.network import make_model
from rayprune.training.run import dataset_of, run_plan
from rayprune.training.worker import Worker

BLOCK = (
    "self_attention.in_proj_weight",
    "self_attention.out_proj.weight",
    "mlp.0.weight",
    "mlp.3.weight",
)


def weights_of(num_blocks):
    """What may be pruned: linear layers, and the convolution that projects patches."""
    blocks = [f"encoder.layers.encoder_layer_{i}.{w}" for i in range(num_blocks) for w in BLOCK]
    return ("conv_proj.weight", *blocks, "heads.head.weight")


def test_all_linear_layers_of_vit_b_16_and_nothing_else():
    with torch.device("meta"):
        model = build_model("vit_b_16", num_classes=1000)
    parameters = dict(model.named_parameters())
    assert prunable(model) == weights_of(12)
    total = 12 * (4 * 768**2 + 2 * 768 * 3072) + 768 * 16**2 * 3 + 768 * 1000
    assert sum(parameters[name].numel() for name in prunable(model)) == total
    assert {"class_token", "encoder.pos_embedding"} <= parameters.keys() - set(prunable(model))


def coloured_noise():
    """32x32 images, brightest in the channel that is their class."""

    def images(num, generator):
        labels = torch.arange(num) % 3
        pixels = torch.randint(0, 160, (num, 3, 32, 32), generator=generator)
        pixels[torch.arange(num), labels] += 90
        return pixels.to(torch.uint8), labels

    generator = torch.Generator().manual_seed(0)
    return {name: images(num, generator) for name, num in (("train", 96), ("test", 30))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny transformer, pruned in one cycle; `dense` says how its dense run goes."""
    storage = str(tmp_path_factory.mktemp("transformer"))

    def run(cycles=1, **dense):
        experiment = Experiment.model_validate(
            {
                "model": {
                    "target": "torchvision.models.vision_transformer:VisionTransformer",
                    "kwargs": {
                        "image_size": 32,
                        "patch_size": 8,
                        "num_layers": 2,
                        "num_heads": 2,
                        "hidden_dim": 32,
                        "mlp_dim": 64,
                    },
                },
                "data": {"target": f"{__name__}:coloured_noise"},
                "batch_size": 12,
                "optim": {"lr": 0.05},
                "dense": {"epochs": 4, **dense},
                "prune": {"sparsity": 0.8, "cycles": cycles},
                "retrain": {"epochs": 1},
            }
        )
        return experiment, run_plan(experiment, make_plan(experiment), Worker(), storage)

    return run


def test_norms_and_embeddings_stay_whole(run):
    experiment, snapshot = run()
    assert tuple(snapshot.masks) == weights_of(2)
    assert num_pruned(snapshot.masks) == round(0.8 * num_weights(snapshot.masks))
    for name, mask in snapshot.masks.items():
        assert torch.equal(snapshot.weights[name] != 0, mask), name
    model = make_model(experiment, dataset_of(experiment))
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 5
    for name in ("class_token", "encoder.pos_embedding", *(f"{norm}.weight" for norm in norms)):
        assert (snapshot.weights[name] != 0).all(), name


def test_projections_of_attention_are_pruned_and_counted(run):
    _, snapshot = run()
    _, last = snapshot.records
    mask = snapshot.masks["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"]
    assert mask.shape == (96, 32) and not mask.all()
    per_token = 4 * 32**2 + 2 * 32 * 64
    assert last.flops == 2 * 17 * per_token + 16 * 8 * 8 * 3 * 32 + 32 * 3
    assert last.metrics["test_accuracy"] > 0.5, "chance is a third"


@pytest.mark.parametrize("method", ["gmp", "str", "dst"])
def test_methods_that_sparsify_take_transformers(method, run):
    """Attention reads its projections from attributes, parametrized ones too."""
    experiment, snapshot = run(cycles=0, sparsify={"method": method})
    model = make_model(experiment, dataset_of(experiment))
    assert list(snapshot.weights) == list(model.state_dict())
    assert tuple(snapshot.masks) == weights_of(2)
    assert 0 < snapshot.records[-1].sparsity < 1
