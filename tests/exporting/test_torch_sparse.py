"""Linear layers in CSR compute what the dense ones do, with nothing of ours installed."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from rayprune.exporting.loaders.torch_sparse import CsrLinear, load
from rayprune.exporting.torch_sparse import FILE, write_torch_sparse
from rayprune.models.lenet import lenet_300_100
from rayprune.pruning.masks import apply_, prunable

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


def prune(model, sparsity=0.95):
    """Random masks, applied; the model in eval mode, its norms off their initial values."""
    torch.manual_seed(0)
    named = dict(model.named_parameters())
    masks = {name: torch.rand(named[name].shape) >= sparsity for name in prunable(model)}
    apply_(model, masks)
    return model.eval(), masks


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    return prune(lenet_300_100(10, 1))


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return prune(nn.TransformerEncoderLayer(256, 4, 512, batch_first=True))


def csr_layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, CsrLinear)]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("batch", [0, 1, 2, 33])
def test_lenet_computes_the_same(lenet, tmp_path, batch, mode):
    model, masks = lenet
    before = copy.deepcopy(model.state_dict())
    sparse = write_torch_sparse(model, masks, tmp_path)
    assert csr_layers(sparse) == ["2"]  # the others are small
    inputs = torch.randn(batch, 1, 28, 28)
    with mode():
        assert torch.allclose(sparse(inputs), model(inputs), atol=1e-5)
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_transformer_computes_the_same(layer, tmp_path, mode):
    """Three dimensions, and without gradients torch would run a fused kernel for dense weights."""
    model, masks = layer
    sparse = write_torch_sparse(model, masks, tmp_path)
    assert csr_layers(sparse) == ["linear1", "linear2"]
    inputs = torch.randn(3, 7, 256)
    padding = torch.arange(7) >= torch.tensor([7, 4, 6])[:, None]
    with mode():
        for options in ({}, {"src_key_padding_mask": padding}):
            difference = (sparse(inputs, **options) - model(inputs, **options)).abs()
            kept = ~padding if options else torch.ones(3, 7, dtype=torch.bool)
            assert difference[kept].max() < 1e-5


def test_a_padded_encoder_computes_the_same(layer, tmp_path):
    """torch would make nested tensors of padded batches, which only its fused kernel takes."""
    model, masks = prune(nn.TransformerEncoder(layer[0], num_layers=2))
    sparse = write_torch_sparse(model, masks, tmp_path)
    inputs = torch.randn(3, 7, 256)
    padding = torch.arange(7) >= torch.tensor([7, 4, 6])[:, None]
    with torch.inference_mode():
        ours = sparse(inputs, src_key_padding_mask=padding)[~padding]
        theirs = model(inputs, src_key_padding_mask=padding)[~padding]
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("shape", [(400,), (1, 400), (5, 400), (1, 1, 400), (2, 3, 4, 400)])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_shape(shape, bias, tmp_path):
    """A model that is one linear layer; what comes out may be viewed in any other shape."""
    model, masks = prune(nn.Linear(400, 300, bias=bias))
    sparse = write_torch_sparse(model, masks, tmp_path)
    inputs = torch.randn(shape)
    output = sparse(inputs)
    assert output.shape == (*shape[:-1], 300) and output.is_contiguous()
    assert torch.allclose(output, model(inputs), atol=1e-5)


def test_shared_layers_and_rows_without_weights(tmp_path):
    first = nn.Linear(400, 400)
    tied = nn.Linear(400, 400, bias=False)
    tied.weight = first.weight
    model, masks = prune(nn.Sequential(first, nn.ReLU(), first, tied))
    masks["0.weight"][5:50] = False
    apply_(model, masks)
    sparse = write_torch_sparse(model, masks, tmp_path)
    assert sparse[0] is sparse[2] and isinstance(sparse[3], CsrLinear)
    inputs = torch.randn(4, 400)
    assert torch.allclose(sparse(inputs), model(inputs), atol=1e-5)


def test_only_layers_that_it_is_for(tmp_path):
    model, masks = prune(nn.Sequential(nn.Linear(400, 400), nn.Linear(400, 20), nn.Linear(20, 20)))
    del masks["2.weight"]
    assert csr_layers(write_torch_sparse(model, masks, tmp_path)) == ["0"]


@pytest.mark.parametrize(
    ("model", "sparsity", "got"),
    [
        (nn.Sequential(nn.Conv2d(64, 256, 3)), 0.95, "Got none that is pruned"),
        (nn.Linear(400, 400), 0.5, "the model itself with 160,000 weights of float32, 49.9% zero"),
        (nn.Sequential(nn.Linear(99, 99)), 0.95, "as its largest 0 with 9,801 weights"),
        (nn.Linear(400, 400).to(torch.bfloat16), 0.95, "160,000 weights of bfloat16"),
    ],
    ids=["convolution", "half full", "small", "bfloat16"],
)
def test_others_are_refused(model, sparsity, got, tmp_path):
    with pytest.raises(ValueError, match=got) as error:
        write_torch_sparse(*prune(model, sparsity), tmp_path)
    assert "Write --to mnn" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_another_architecture_is_refused(lenet, tmp_path):
    write_torch_sparse(*lenet, tmp_path)
    with pytest.raises(RuntimeError, match="Missing key"):
        load(nn.Sequential(nn.Linear(784, 300)), tmp_path / FILE)


def test_the_loader_needs_nothing_of_ours(layer, tmp_path):
    model, masks = layer
    write_torch_sparse(model, masks, tmp_path)
    inputs = torch.randn(3, 7, 256)
    torch.save((inputs, model(inputs)), tmp_path / "expected.pt")
    code = (
        "import sys, torch; from torch_sparse import load;"
        "model = torch.nn.TransformerEncoderLayer(256, 4, 512, batch_first=True);"
        "model = load(model, 'torch_sparse.safetensors'); assert not model.training;"
        "inputs, expected = torch.load('expected.pt', weights_only=True);"
        "assert torch.allclose(model(inputs), expected, atol=1e-5);"
        "assert 'rayprune' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PATH": ""})
