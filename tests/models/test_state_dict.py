"""A state_dict is found in what a training run saved, and nothing of the file is run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rayprune.models.state_dict import read_state_dict

WEIGHTS = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
OTHER = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
OPTIMISER = {"state": {0: {"exp_avg": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1}]}
BUFFERS = {"momentum": {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}}


def read(content: Any, folder: Path, key: str | None = None) -> dict[str, Any]:
    torch.save(content, folder / "model.pt")
    return read_state_dict(folder / "model.pt", key)


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": OPTIMISER},
        {"model_state_dict": WEIGHTS, "optimizer_state_dict": BUFFERS, "loss": torch.zeros(())},
        {"anything": WEIGHTS},
        {"model": {"params": WEIGHTS, "config": {"depth": 3}}, "args": ["a"]},
        {"net": WEIGHTS, "rng_state": {"torch": torch.zeros(9, dtype=torch.uint8)}},
        {"ema": {"module": WEIGHTS}, "states": {"cuda": torch.zeros(9, dtype=torch.uint8)}},
    ],
)
def test_the_only_state_dict_of_a_file_is_taken(content: Any, tmp_path: Path) -> None:
    assert same(read(content, tmp_path), WEIGHTS)


def test_of_several_one_is_named(tmp_path: Path) -> None:
    content = {"state_dict": WEIGHTS, "ema": {"params": OTHER}, "epoch": 1}
    with pytest.raises(
        ValueError, match=r"several state_dicts: state_dict, ema\.params\. Write .*weights_key: st"
    ):
        read(content, tmp_path)
    assert same(read(content, tmp_path, "state_dict"), WEIGHTS)
    assert same(read(content, tmp_path, "ema.params"), OTHER)
    with pytest.raises(ValueError, match=r"holds state_dict, ema\.params, got .*weights_key: emaa"):
        read(content, tmp_path, "emaa")
    with pytest.raises(ValueError, match=r"holds one state_dict, without a name.*Leave"):
        read(WEIGHTS, tmp_path, "ema")


def test_a_module_may_keep_more_than_tensors(tmp_path: Path) -> None:
    whole = {**WEIGHTS, "bn.num_batches_tracked": 7, "fc._extra_state": {"scale": torch.ones(1)}}
    assert read(whole, tmp_path).keys() == whole.keys()


@pytest.mark.parametrize("is_zip", [True, False])
def test_old_and_new_files_of_torch_are_read(is_zip: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=is_zip)
    assert same(read_state_dict(file), WEIGHTS)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert same(read_state_dict(tmp_path / "model.safetensors"), WEIGHTS)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/rayprune_was_here",)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state_dict": WEIGHTS, "hook": Harmful()}, r"posix\.system"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_only_tensors_are_unpickled(content: Any, name: str, is_zip: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        ValueError,
        match=rf"^experiment\.model\.weights: .*model\.pt holds more than tensors \({name}\), and "
        r"nothing but tensors is unpickled\. Save model\.state_dict\(\)$",
    ):
        read_state_dict(file)
    assert not Path("/tmp/rayprune_was_here").exists()


def test_a_torchscript_archive_is_told(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is a TorchScript archive"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "is not a"),
        (b"<html>no weights</html>" * 50, "is not a"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_a_file_that_holds_no_weights_is_told(
    suffix: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^experiment\.model\.weights: .*{reason}[^\n]*$"):
        read_state_dict(file)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_half_a_file_is_told(kind: str, tmp_path: Path) -> None:
    file = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    weights = {"w": torch.rand(300, 100)}
    if kind == "safetensors":
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=kind == "zip")
    file.write_bytes(file.read_bytes()[:60_000])
    with pytest.raises(ValueError, match=r"is damaged, or was not copied to its end[^\n]*$"):
        read_state_dict(file)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {}, torch.zeros(3), 7])
def test_what_is_no_state_dict_is_told(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: .*must hold a state_dict"):
        read(content, tmp_path)


def test_plain_values_of_a_training_script_are_no_code(tmp_path: Path) -> None:
    beside = {"args": argparse.Namespace(lr=0.1), "best": np.float64(3.5), "epoch": np.int64(7)}
    torch.save({"state_dict": {"weight": torch.ones(2)}, **beside}, tmp_path / "trained.pth")
    assert read_state_dict(tmp_path / "trained.pth")["weight"].tolist() == [1, 1]
