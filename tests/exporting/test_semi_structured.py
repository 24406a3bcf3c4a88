"""2:4 needs a GPU: refused where there is none, and computed where there is one."""

import copy
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rayprune.exporting import semi_structured
from rayprune.exporting.semi_structured import (
    FILE,
    MULTIPLE_OF,
    check_semi_structured,
    write_semi_structured,
)
from rayprune.pruning.masks import apply_, prunable
from rayprune.pruning.structured import n_of_m_masks

has_gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
on_gpu = pytest.mark.skipif(not has_gpu, reason="needs a CUDA GPU of compute capability 8.0")
without_gpu = pytest.mark.skipif(has_gpu, reason="refused only where there is no such GPU")


def prune(model):
    """2:4 masks, applied; in eval mode."""
    named = dict(model.named_parameters())
    masks = {name: torch.ones(named[name].shape, dtype=torch.bool) for name in prunable(model)}
    masks = n_of_m_masks({name: named[name].detach() for name in masks}, masks, 2, 4)
    apply_(model, masks)
    return model.eval(), masks


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 96, bias=False)]
    return nn.Sequential(*layers, nn.Linear(96, 10))


@without_gpu
def test_a_machine_without_such_a_gpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"compute capability 8\.0 .*, got .*Export on such"):
        check_semi_structured()
    with pytest.raises(ValueError, match=r"compute capability 8\.0"):
        write_semi_structured(*prune(network()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(ValueError, match=r"got Tesla T4, which has 7\.5"):
        check_semi_structured()


def test_a_model_that_is_not_2_in_4_is_refused(tmp_path):
    model = network()
    named = dict(model.named_parameters())
    masks = {name: torch.rand(named[name].shape) > 0.5 for name in prunable(model)}
    apply_(model, masks)
    with pytest.raises(ValueError, match="got none among 3 that are pruned"):
        write_semi_structured(model, masks, tmp_path)


def test_a_model_of_convolutions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got none among 0"):
        write_semi_structured(*prune(nn.Sequential(nn.Conv2d(64, 64, 3))), tmp_path)


def test_shapes_that_torch_refuses_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"multiples of 16, got 0 \(10, 128\)"):
        write_semi_structured(*prune(nn.Sequential(nn.Linear(128, 10))), tmp_path)


def test_the_rule_of_shapes_is_torchs():
    rules = torch.sparse.SparseSemiStructuredTensorCUSPARSELT._DTYPE_SHAPE_CONSTRAINTS
    rule = rules[torch.float16]
    assert (rule.sparse_min_rows, rule.sparse_min_cols) == (MULTIPLE_OF, MULTIPLE_OF)


@pytest.fixture
def without_its_kernel(monkeypatch):
    """What is written, and how it is loaded, on a machine that cannot multiply it."""
    packed = []
    monkeypatch.setattr(semi_structured, "check_semi_structured", lambda: None)
    monkeypatch.setattr(nn.Module, "cuda", lambda module: module)
    monkeypatch.setattr(
        torch.sparse, "to_sparse_semi_structured", lambda w: packed.append(w.shape) or w
    )
    return packed


def test_the_file_has_half_precision_and_names_the_layers(tmp_path, without_its_kernel):
    model, masks = prune(network())
    before = copy.deepcopy(model.state_dict())
    loaded = write_semi_structured(model, masks, tmp_path)
    assert without_its_kernel == [(64, 128), (96, 64)]  # ten classes are no multiple of 16
    saved = load_file(tmp_path / FILE)
    for name, weight in before.items():
        assert torch.equal(model.state_dict()[name], weight)
        expected = weight.half() if weight.is_floating_point() else weight
        assert torch.equal(saved[name], expected)
        assert torch.equal(loaded.state_dict()[name], expected)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_weight_beyond_half_precision_is_refused(tmp_path, without_its_kernel):
    model, masks = prune(network())
    model[1].running_var[3] = 1e5
    with pytest.raises(ValueError, match=r"up to 65504, got 1e\+05 in 1\.running_var"):
        write_semi_structured(model, masks, tmp_path)


@on_gpu
def test_it_computes_what_the_dense_model_does(tmp_path):
    model, masks = prune(network())
    sparse = write_semi_structured(model, masks, tmp_path)
    assert isinstance(sparse[0].weight, torch.sparse.SparseSemiStructuredTensor)
    assert not isinstance(sparse[4].weight, torch.sparse.SparseSemiStructuredTensor)
    for batch in (1, 5, 64):
        inputs = torch.randn(batch, 128)
        with torch.inference_mode():
            output = sparse(inputs.half().cuda()).float().cpu()
        assert torch.allclose(output, model(inputs), atol=2e-2)


@on_gpu
def test_a_transformer_on_the_gpu(tmp_path):
    model, masks = prune(nn.TransformerEncoderLayer(128, 4, 256, batch_first=True))
    sparse = write_semi_structured(model, masks, tmp_path)
    inputs = torch.randn(3, 7, 128)
    with torch.inference_mode():
        output = sparse(inputs.half().cuda()).float().cpu()
    assert torch.allclose(output, model(inputs), atol=2e-2)


@on_gpu
def test_the_loader_on_the_gpu_needs_nothing_of_ours(tmp_path):
    write_semi_structured(*prune(nn.Sequential(nn.Linear(128, 64))), tmp_path)
    code = (
        "import sys, torch; from semi_structured import load;"
        "model = torch.nn.Sequential(torch.nn.Linear(128, 64));"
        "model = load(model, 'semi_structured.safetensors');"
        "assert model(torch.randn(4, 128).half().cuda()).shape == (4, 64);"
        "assert 'rayprune' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
