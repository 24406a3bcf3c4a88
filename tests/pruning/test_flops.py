import math

import pytest
import torch
from shaped import multiply_adds
from torch import nn

from rayprune.models import build_model
from rayprune.pruning.allocation import layer_counts
from rayprune.pruning.flops import cost, theoretical_speedup
from rayprune.pruning.masks import prunable


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5), (11, 7), 11 * 35),
        (nn.Conv2d(4, 6, 3), (4, 8, 8), 6 * 6 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), (4, 8, 8), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), (4, 8, 8), 6 * 6 * 6 * 2 * 9),
        (nn.Conv2d(4, 4, 3, groups=4), (4, 8, 8), 6 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2), (4, 8, 8), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, (1, 3)), (4, 8, 8), 8 * 6 * 6 * 4 * 3),
        (nn.Conv1d(4, 6, 3), (4, 8), 6 * 6 * 4 * 3),
        (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 8, 8), 64 * 4 * 6 * 4),
    ],
)
def test_multiply_adds_of_a_layer_by_hand(layer, input_shape, expected):
    assert multiply_adds(layer, input_shape) == {"weight": expected}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)

    def forward(self, x):
        x = self.attention(x, x, x)[0]
        return self.cross(x, x[..., :4], x[..., :4])[0]


def test_attention_counts_its_projections_and_not_its_scores():
    assert multiply_adds(Attention, (5, 8)) == {
        "attention.in_proj_weight": 5 * 3 * 64,
        "attention.out_proj.weight": 5 * 64,
        "cross.q_proj_weight": 5 * 64,
        "cross.k_proj_weight": 5 * 32,
        "cross.v_proj_weight": 5 * 32,
        "cross.out_proj.weight": 5 * 64,
    }


def test_the_fused_transformer_layer_is_seen_through():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    per_token = {
        "self_attn.in_proj_weight": 192,
        "self_attn.out_proj.weight": 64,
        "linear1.weight": 128,
        "linear2.weight": 128,
    }
    assert multiply_adds(layer, (5, 8)) == {name: 5 * n for name, n in per_token.items()}


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.twice.weight
        self.idle = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.tied(self.norm(self.twice(self.twice(x))))


@pytest.mark.parametrize("model", [Reused, Reused()])
def test_a_weight_counts_each_time_it_is_used(model):
    assert multiply_adds(model, (4,)) == {"twice.weight": 48, "idle.weight": 0}


def test_a_model_that_is_given_stays_as_it_is():
    model = Reused().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    multiply_adds(model, (4,))
    assert model.training
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())


def test_cost_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 4))
    counts = multiply_adds(model, (1, 3, 3))
    assert counts == {"0.weight": 32, "2.weight": 32}
    masks = {"0.weight": torch.ones(2, 1, 2, 2) > 0, "2.weight": torch.zeros(4, 8) > 0}
    masks["0.weight"][0] = False
    masks["2.weight"][0, :3] = True
    result = cost(46, counts, masks)
    assert (result.num_parameters, result.num_nonzero) == (46, 46 - 4 - 29)
    assert result.sparsity == 33 / 40
    assert result.compression == 46 / 13
    assert (result.flops, result.flops_nonzero) == (64, 19)
    assert result.theoretical_speedup == 64 / 19
    dense = cost(46, counts, {name: mask | True for name, mask in masks.items()})
    assert (dense.sparsity, dense.compression, dense.theoretical_speedup) == (0, 1, 1)
    nothing = cost(40, counts, {name: mask & False for name, mask in masks.items()})
    assert nothing.compression == nothing.theoretical_speedup == math.inf


# name, input, parameters, prunable, multiply-adds, speed-up at .9 of uniform_plus and of erk
KNOWN = [
    ("resnet56", 32, 853_018, 848_944, 125_485_696, 9.743, 5.403),
    ("wrn_28_10", 32, 36_546_980, 36_518_832, 5_951_175_168, 10.012, 6.075),
    ("resnet18_cifar", 32, 11_173_962, 11_164_352, 555_422_720, 9.739, 4.029),
    ("resnet50", 224, 25_557_032, 25_502_912, 4_089_184_256, 8.533, 4.135),
]
NUM_CLASSES = {"wrn_28_10": 100, "resnet50": 1000}


@pytest.mark.parametrize(("name", "side", "total", "weights", "flops", "plus", "erk"), KNOWN)
def test_known_costs_of_whole_models(name, side, total, weights, flops, plus, erk):
    def build():
        return build_model(name, num_classes=NUM_CLASSES.get(name, 10), in_channels=3)

    with torch.device("meta"):
        parameters = dict(build().named_parameters())
    counts = multiply_adds(build, (3, side, side))
    shapes = {weight: tuple(parameters[weight].shape) for weight in counts}
    sizes = {weight: math.prod(shape) for weight, shape in shapes.items()}
    assert sum(parameter.numel() for parameter in parameters.values()) == total
    assert sum(sizes.values()) == weights
    assert sum(counts.values()) == flops
    for allocation, speedup in (("uniform_plus", plus), ("erk", erk)):
        pruned = layer_counts(allocation, shapes, round(0.9 * weights))
        densities = {weight: 1 - pruned[weight] / size for weight, size in sizes.items()}
        # The known values round each layer on its own; an exact total moves them by up to 4.5e-4.
        assert theoretical_speedup(counts, densities) == pytest.approx(speedup, rel=5e-4)


def test_only_projections_and_linear_layers_of_a_vision_transformer_count():
    def build():
        return build_model("vit_b_16", num_classes=1000, in_channels=3)

    counts = multiply_adds(build, (3, 224, 224))
    block = 197 * (4 * 768**2 + 2 * 768 * 3072)
    assert sum(counts.values()) == 12 * block + 196 * 768 * 768 + 768 * 1000
    with torch.device("meta"):
        assert tuple(counts) == prunable(build())
