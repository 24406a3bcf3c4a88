"""The files of best/ load with nothing of ours, and say where they come from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_records import record
from safetensors import safe_open
from safetensors.torch import load_file

from rayprune.config import Experiment
from rayprune.exporting.model_files import write_model
from rayprune.models import build_model
from rayprune.pruning.masks import prunable
from rayprune.snapshot import Snapshot


@pytest.fixture
def snapshot():
    torch.manual_seed(0)
    model = build_model("lenet_300_100", num_classes=10, in_channels=1)
    weights = dict(model.state_dict())
    masks = {name: torch.rand(weights[name].shape) > 0.7 for name in prunable(model)}
    kept = {name: w * masks[name] if name in masks else w for name, w in weights.items()}
    return Snapshot(kept, masks, (record(),))


@pytest.fixture
def folder(snapshot, tmp_path):
    write_model(snapshot, Experiment(), str(tmp_path / "best"), {"key": "k", "trial": "3"})
    return tmp_path / "best"


def test_the_weights_load_into_the_plain_model(folder, snapshot):
    weights = load_file(folder / "model.safetensors")
    model = build_model("lenet_300_100", num_classes=10, in_channels=1)
    model.load_state_dict(weights)
    assert all(torch.equal(weights[name], w) for name, w in snapshot.weights.items())


def test_the_masks_are_a_bit_a_weight(folder, snapshot):
    with safe_open(folder / "masks.safetensors", "np") as file:
        shapes = {name: json.loads(shape) for name, shape in file.metadata().items()}
        bits = {name: file.get_tensor(name) for name in shapes}
    assert shapes.keys() == snapshot.masks.keys()
    for name, mask in snapshot.masks.items():
        count = int(np.prod(shapes[name]))
        read = np.unpackbits(bits[name], count=count).reshape(shapes[name]).astype(bool)
        assert (read == mask.numpy()).all()
        assert bits[name].nbytes == -(-count // 8)


def test_a_dense_network_has_no_masks(folder, snapshot):
    """Also where a pruned one lay before."""
    whole = {name: torch.ones_like(mask) for name, mask in snapshot.masks.items()}
    write_model(Snapshot(snapshot.weights, whole, snapshot.records), Experiment(), str(folder), {})
    assert sorted(file.name for file in folder.iterdir()) == [
        "model.safetensors",
        "provenance.json",
    ]


def test_provenance_says_how_images_became_inputs(folder, snapshot):
    assert json.loads((folder / "provenance.json").read_text())["preprocessing"] is None
    said = {"mean": [0.5], "std": [0.25], "resize": None, "eval_crop": None}
    records = (replace(snapshot.records[-1], preprocessing=said),)
    write_model(replace(snapshot, records=records), Experiment(), str(folder), {})
    assert json.loads((folder / "provenance.json").read_text())["preprocessing"] == said


def test_provenance_says_what_made_it(folder, snapshot):
    said = json.loads((folder / "provenance.json").read_text())
    assert (said["key"], said["trial"]) == ("k", "3")
    assert Experiment.model_validate(said["experiment"]) == Experiment()
    assert said["versions"]["torch"] == torch.__version__.partition("+")[0]
    counts = {row["name"]: row["num_nonzero"] for row in said["layers"]}
    assert counts == {name: int(mask.sum()) for name, mask in snapshot.masks.items()}


def test_while_it_is_written_the_folder_is_nobodys(folder, snapshot, monkeypatch):
    """A second model of which only a part was written must not pass for either."""

    class FullError(Exception):
        pass

    def full(file, content):
        raise FullError

    monkeypatch.setattr("rayprune.exporting.model_files.write_bytes", full)
    with pytest.raises(FullError):
        write_model(snapshot, Experiment(), str(folder), {"key": "other"})
    assert not (folder / "provenance.json").exists()
