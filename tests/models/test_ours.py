"""A folder that a study wrote comes back: weights, masks, and what it was trained with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_records import record

from rayprune import config
from rayprune.checks import check_brought
from rayprune.config import Experiment
from rayprune.exporting.model_files import write_model
from rayprune.models import build_model
from rayprune.models.ours import brought_masks, read_masks
from rayprune.models.trained import Preprocessing, trained_preprocessing
from rayprune.pruning.masks import prunable
from rayprune.snapshot import Snapshot

SAID = {
    **dict(mean=[0.5], std=[0.25], resize=32, eval_crop=0.875, interpolation="bicubic"),
    "channels": 1,
}


@pytest.fixture
def pruned() -> Snapshot:
    torch.manual_seed(0)
    model = build_model("lenet5", num_classes=10, in_channels=1)
    weights = dict(model.state_dict())
    masks = {name: torch.rand(weights[name].shape) > 0.7 for name in prunable(model)}
    kept = {name: w * masks[name] if name in masks else w for name, w in weights.items()}
    return Snapshot(kept, masks, (record(),))


def test_weights_and_masks_come_back(pruned: Snapshot, tmp_path: Path) -> None:
    write_model(pruned, Experiment(), str(tmp_path), {"key": "k"})
    model = build_model("lenet5", weights=str(tmp_path), num_classes=10, in_channels=1)
    assert all(torch.equal(pruned.weights[k], w) for k, w in model.state_dict().items())
    for path in (tmp_path, tmp_path / "model.safetensors"):
        masks = read_masks(path)
        assert masks is not None and masks.keys() == pruned.masks.keys()
        assert all(torch.equal(masks[name], mask) for name, mask in pruned.masks.items())
    assert brought_masks(str(tmp_path), model).keys() == masks.keys()


def test_a_fresh_head_has_no_mask(pruned: Snapshot, tmp_path: Path) -> None:
    write_model(pruned, Experiment(), str(tmp_path), {"key": "k"})
    model = build_model(
        "lenet5", weights=str(tmp_path), new_head=True, num_classes=4, in_channels=1
    )
    head = list(pruned.masks)[-1]
    assert pruned.masks.keys() - brought_masks(str(tmp_path), model).keys() == {head}


def test_masks_of_another_network_are_refused(pruned: Snapshot, tmp_path: Path) -> None:
    write_model(pruned, Experiment(), str(tmp_path), {"key": "k"})
    with pytest.raises(ValueError, match=r"masks\.safetensors in .* is of another network"):
        brought_masks(str(tmp_path), build_model("resnet20", num_classes=10))
    (tmp_path / "masks.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"masks\.safetensors is damaged"):
        read_masks(tmp_path)


def test_without_masks_there_are_none(pruned: Snapshot, tmp_path: Path) -> None:
    model = build_model("lenet5", num_classes=10, in_channels=1)
    assert read_masks(tmp_path) is None and brought_masks(None, model) == {}
    torch.save(pruned.weights, tmp_path / "model.pt")
    assert read_masks(tmp_path / "model.pt") is None


def test_what_it_was_trained_with_comes_back(pruned: Snapshot, tmp_path: Path) -> None:
    model = config.Model(name="lenet5", weights=str(tmp_path))
    records = (replace(pruned.records[-1], preprocessing=SAID),)
    write_model(replace(pruned, records=records), Experiment(), str(tmp_path), {"key": "k"})
    assert trained_preprocessing(model) == Preprocessing((0.5,), (0.25,), 32, 0.875, "bicubic")
    write_model(pruned, Experiment(), str(tmp_path), {"key": "k"})
    assert trained_preprocessing(model) is None
    (tmp_path / "provenance.json").write_text(json.dumps({"preprocessing": {"mean": [0.5]}}))
    with pytest.raises(ValueError, match="has a broken preprocessing"):
        trained_preprocessing(model)


def test_methods_that_make_masks_do_not_start_from_a_pruned_network(
    pruned: Snapshot, tmp_path: Path
) -> None:
    write_model(pruned, Experiment(), str(tmp_path), {"key": "k"})
    dense = {"epochs": 2, "sparsify": {"method": "gmp"}}
    model = {"name": "lenet5", "weights": str(tmp_path)}
    wanted = Experiment.model_validate({"model": model, "dense": dense})
    with pytest.raises(ValueError, match=r"gmp starts from a dense network, and .* the folder den"):
        check_brought([wanted])
    (tmp_path / "masks.safetensors").unlink()
    check_brought([wanted])
