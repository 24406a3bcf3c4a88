"""What the loader beside packed.safetensors returns is the network's weights, bit for bit."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rayprune.exporting.loaders.packed import load
from rayprune.exporting.packed import FILE, write_packed
from rayprune.exporting.sizes import CHUNK_BYTES, zlib_size
from rayprune.models import build_model
from rayprune.pruning.masks import prunable


def pruned(shape, sparsity, dtype=torch.float32):
    torch.manual_seed(0)
    mask = torch.rand(shape) >= sparsity
    weight = torch.randn(shape).to(dtype)
    return torch.where(mask, weight, torch.zeros((), dtype=dtype)), mask


def packed_and_loaded(weight, mask, folder):
    write_packed({"w": weight}, {"w": mask}, folder)
    return load(folder / FILE)["w"]


def form(folder, name="w"):
    with safe_open(folder / FILE, "np") as file:
        return json.loads(file.metadata()["info"])[name]["places"]


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [(0, "all"), (0.5, "bits"), (0.8, "bits"), (0.9, "gaps"), (0.98, "gaps"), (0.9995, "gaps")],
)
def test_every_sparsity_comes_back_in_its_shortest_form(sparsity, expected, tmp_path):
    weight, mask = pruned((130, 70, 3, 3), sparsity)
    loaded = packed_and_loaded(weight, mask, tmp_path)
    assert (loaded.shape, loaded.dtype) == ((130, 70, 3, 3), np.float32)
    assert loaded.tobytes() == weight.numpy().tobytes()
    assert form(tmp_path) == expected


@pytest.mark.parametrize(
    "kept",
    [[], [0], [254], [255], [256], [509], [510], [511], [999], [0, 1, 256, 512, 999]],
    ids=str,
)
def test_zeros_may_be_many_in_a_row(kept, tmp_path):
    weight = torch.zeros(1000)
    weight[kept] = 1.5
    assert (packed_and_loaded(weight, weight != 0, tmp_path) == weight.numpy()).all()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_every_number_format_that_numpy_has(dtype, tmp_path):
    weight, mask = pruned((40, 50), 0.95, dtype)
    loaded = packed_and_loaded(weight, mask, tmp_path)
    assert loaded.dtype == weight.numpy().dtype and loaded.tobytes() == weight.numpy().tobytes()


def test_bfloat16_comes_as_float32(tmp_path):
    for sparsity in (0, 0.95):
        weight, mask = pruned((40, 50), sparsity, torch.bfloat16)
        assert (packed_and_loaded(weight, mask, tmp_path) == weight.float().numpy()).all()


def test_a_format_without_a_numpy_type_is_refused(tmp_path):
    weight = torch.zeros(4).to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"got torch\.float8_e4m3fn of w\. Convert"):
        write_packed({"w": weight}, {}, tmp_path)


def test_a_negative_zero_comes_back(tmp_path):
    weight, mask = pruned((40, 50), 0.95)
    weight[~mask] = torch.where(torch.arange(int((~mask).sum())) % 9 == 0, -0.0, 0.0)
    assert packed_and_loaded(weight, mask, tmp_path).tobytes() == weight.numpy().tobytes()


def test_odd_tensors_of_a_state_dict(tmp_path):
    shared = torch.randn(6, 4)
    weights = {
        "num_batches_tracked": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "transposed": shared.t(),
        "tied": shared,
        "again": shared,
    }
    write_packed(weights, {"empty": torch.ones(0, 3, dtype=torch.bool)}, tmp_path)
    loaded = load(tmp_path / FILE)
    assert list(loaded) == list(weights)
    for name, weight in weights.items():
        assert loaded[name].shape == tuple(weight.shape)
        assert (loaded[name] == weight.numpy()).all()


def test_the_loader_needs_numpy_and_safetensors_alone(tmp_path):
    torch.manual_seed(0)
    model = build_model("small_cnn", num_classes=10, in_channels=1)
    weights = dict(model.state_dict())
    masks = {name: torch.rand(weights[name].shape) > 0.9 for name in prunable(model)}
    weights |= {name: weights[name] * mask for name, mask in masks.items()}
    write_packed(weights, masks, tmp_path)
    code = (
        "import sys; from packed import load; weights = load('packed.safetensors'); import numpy;"
        "numpy.savez('seen', **weights);"
        "assert not {'torch', 'rayprune'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PATH": ""})
    seen = np.load(tmp_path / "seen.npz")
    assert seen.keys() == weights.keys()
    for name, weight in weights.items():
        assert seen[name].dtype == weight.numpy().dtype
        assert seen[name].tobytes() == weight.numpy().tobytes()


def test_packed_is_much_smaller(tmp_path):
    weight, mask = pruned((512, 512), 0.98)
    packed_and_loaded(weight, mask, tmp_path)
    assert (tmp_path / FILE).stat().st_size < 0.03 * weight.nbytes


@pytest.mark.parametrize("size", [0, 5, CHUNK_BYTES, 2 * CHUNK_BYTES + 3])
def test_zlib_size_is_that_of_the_whole(size, tmp_path):
    content = np.random.default_rng(0).integers(0, 3, size, np.uint8).tobytes()
    (tmp_path / "f").write_bytes(content)
    assert abs(zlib_size(tmp_path / "f") - len(zlib.compress(content, 6))) <= 16
