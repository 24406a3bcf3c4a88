"""The smaller network runs where nothing of ours is installed, and computes the same."""

import subprocess
import sys
from unittest import mock

import pytest
import torch
from made_trained import as_trained
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import mobilenet_v2

from rayprune.exporting.small import builder_code, write_small
from rayprune.models import vgg
from rayprune.models.resnet import ResNet, cifar_resnet
from rayprune.pruning.allocation import prune_weights
from rayprune.pruning.coupled import coupled_filters
from rayprune.pruning.masks import apply_, prunable
from rayprune.pruning.structured import channel_masks, evaluate, remove_filters

RUN = """
import os, sys, torch
from safetensors.torch import load_file, save_file
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.modules.pop("small", None)
    from small import load
    model = load("small.safetensors")
    with torch.no_grad():
        outputs = model(load_file("images.safetensors")["images"])
    save_file({"outputs": outputs}, "outputs.safetensors")
assert not [name for name in sys.modules if name.startswith(("rayprune", "torch_pruning"))]
"""
IMAGES = torch.zeros(1, 3, 2, 4)
SIZES = {  # of images of small networks that are built as these are
    "resnet20": 16,
    "resnet18_cifar": 8,
    "vgg16_bn_cifar": 32,
    "mobilenet_v2": 32,
    "scaled": 8,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def half_of_the_filters(model, example, *, coupled=True):
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name].detach() for name in prunable(model)}
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    groups = coupled_filters(model, masks, example) if coupled else ()
    fields = {"sparsity": 0.4, "allocation": "uniform", "pattern": "filter"}
    return prune_weights(weights, masks, coupled=groups, **fields)


class Scaled(nn.Module):
    """Parameters and buffers of its own, nested; a list with a gap; a shape that is read."""

    def __init__(self):
        super().__init__()
        self.body = nn.Module()
        self.body.layers = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)])
        self.body.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("mean", torch.rand(3, 1, 1))
        self.heads = nn.Sequential()
        self.heads.add_module("3", nn.Linear(4, 2))

    def forward(self, x):
        first, second = self.body.layers
        x = second(first(x - self.mean).relu()) * self.body.scale
        return self.heads(x.amax((2, 3)).view(x.shape[0], -1))


def network(name):
    if name == "scaled":
        return as_trained(Scaled())
    if name == "mobilenet_v2":
        return as_trained(mobilenet_v2(num_classes=4, width_mult=0.25))
    if name == "resnet20":
        return as_trained(cifar_resnet(8, 10, 3))
    if name == "resnet18_cifar":
        sizes = {"depths": [2, 1], "widths": [8, 16], "num_classes": 10, "in_channels": 3}
        return as_trained(ResNet(**sizes, projects=True))
    narrow = [[width // 8 for width in widths] for widths in vgg.WIDTHS]
    with mock.patch.object(vgg, "WIDTHS", narrow):
        return as_trained(vgg.vgg16_bn_cifar(10, 3))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """name -> folder, network, its masks and the smaller network; all have run on their own."""
    torch.manual_seed(0)
    found = {}
    for name, size in SIZES.items():
        folder, model = tmp_path_factory.mktemp(name), network(name)
        images = torch.randn(3, 3, size, size)
        masks = half_of_the_filters(model, images[:1])
        smaller = remove_filters(model, masks, images[:1])
        write_small(smaller, images[:1], folder)
        found[name] = folder, model, masks, smaller
        save_file({"images": images}, folder / "images.safetensors")
    folders = [str(folder) for folder, *_ in found.values()]
    done = subprocess.run(  # a Python that does not find this package
        [sys.executable, "-c", RUN, *folders],
        cwd=folders[0],
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("name", SIZES)
def test_what_is_written_runs_without_us_and_computes_the_same(name, written):
    folder, model, masks, smaller = written[name]
    images = load_file(folder / "images.safetensors")["images"]
    outputs = load_file(folder / "outputs.safetensors")["outputs"]
    torch.testing.assert_close(outputs, evaluate(smaller, images), rtol=0, atol=1e-5)
    apply_(model, masks | channel_masks(model, masks, images))
    torch.testing.assert_close(outputs, evaluate(model, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_the_weights_have_the_keys_that_they_had_and_are_fewer(name, written):
    folder, model, *_ = written[name]
    weights, before = load_file(folder / "small.safetensors"), model.state_dict()
    assert weights.keys() == before.keys()
    sizes = [sum(w.numel() for w in each.values()) for each in (weights, before)]
    assert sizes[0] < 0.8 * sizes[1]


def test_the_code_reads_as_one_would_write_it():
    code = builder_code(
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Flatten()), IMAGES
    )
    assert code.endswith('''

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("0", nn.Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1), bias=False))
        self.add_module("1", nn.ReLU())
        self.add_module("2", nn.Flatten(start_dim=1, end_dim=-1))

    def forward(self, input):
        input = getattr(self, "0")(input)
        input = getattr(self, "1")(input)
        input = getattr(self, "2")(input)
        return input


def load(path):
    """The network with its weights, in evaluation mode."""
    model = Model()
    model.load_state_dict(load_file(path))
    return model.eval()
''')


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Constant(nn.Module):
    def forward(self, x):
        return x + torch.ones(3)


class Fleeting(nn.Module):
    """A buffer that no state_dict holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.ones(1), persistent=False)

    def forward(self, x):
        return x + self.offset


@torch.fx.wrap
def foreign(x):
    return x


class Foreign(nn.Module):
    def forward(self, x):
        return foreign(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branching(), r"trace Branching \(test_small.py, line \d+: if x.sum\(\) > 0:\)"),
        (Constant(), "reads _tensor_constant0, which .* as a persistent buffer, or write the"),
        (Fleeting(), "reads offset, which .* as a persistent buffer, or write the"),
        (Foreign(), "calls foreign of .*test_small"),
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "that of 0, a MultiheadAttention, is not"),
    ],
)
def test_what_cannot_be_written_is_named(model, message):
    with pytest.raises(ValueError, match=message + ".*--to onnx"):
        builder_code(model, IMAGES)


def test_code_that_computes_something_else_does_not_count(tmp_path):
    """The repr of this layer leaves out how it rounds."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(2, ceil_mode=True)).eval()
    images = torch.randn(1, 3, 5, 5)
    masks = half_of_the_filters(model, images)
    with pytest.raises(ValueError, match=r"would not make Sequential as it is.*--to onnx"):
        write_small(remove_filters(model, masks, images), images, tmp_path)
