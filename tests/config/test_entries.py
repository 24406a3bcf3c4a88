"""Weights by name are a file on this machine, or an error that says where it belongs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rayprune.config.brought import find_weights, our_folder, weights_file
from rayprune.config.entries import entry_of_file, find_entry


@pytest.mark.parametrize(
    ("weights", "file"),
    [
        ("DEFAULT", "resnet50-11ad3fa6.pth"),
        ("IMAGENET1K_V2", "resnet50-11ad3fa6.pth"),
        ("IMAGENET1K_V1", "resnet50-0676ba61.pth"),
    ],
)
def test_an_entry_of_torchvision_is_the_file_that_its_address_names(
    weights: str, file: str, hub: Path
) -> None:
    with pytest.raises(ValueError, match=r"nothing is downloaded\. It belongs at") as told:
        find_weights("resnet50", None, weights)
    assert str(hub / file) in str(told.value)
    (hub / file).write_bytes(b"weights")
    assert find_weights("resnet50", None, weights) == hub / file
    target = "torchvision.models:resnet50"
    assert find_weights(None, target, weights) == hub / file


def test_a_file_that_is_called_like_an_entrys_is_known(hub: Path) -> None:
    entry = entry_of_file("resnet50", None, Path("/elsewhere/resnet50-0676ba61.pth"))
    assert entry is not None and entry.known.name == "IMAGENET1K_V1"
    assert entry_of_file("resnet50", None, Path("/elsewhere/mine.pth")) is None
    assert entry_of_file("resnet20", None, Path("/elsewhere/resnet50-0676ba61.pth")) is None


def test_the_command_that_fetches_an_entry_is_python(hub: Path) -> None:
    pytest.importorskip("timm")
    for name in ("resnet50", "timm/resnet10t"):
        entry = find_entry(name, None, "DEFAULT")
        assert entry is not None
        python, c, code = shlex.split(entry.fetch)
        assert (python, c) == ("python", "-c")
        compile(code, "command", "exec")


@pytest.mark.parametrize("kind", ["hub", "cache"])
def test_an_entry_of_timm_is_in_one_of_two_caches(
    kind: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    file = hub / "resnet10t_176_c3-f3215ab1.pth"
    repository = tmp_path / "hf" / "models--timm--resnet10t.c3_in1k"
    with pytest.raises(ValueError, match="nothing is downloaded") as told:
        find_weights("timm/resnet10t", None, "DEFAULT")
    assert str(file) in str(told.value) and f"{repository}/model.safetensors" in str(told.value)
    assert "timm.create_model('resnet10t', pretrained=True)" in str(told.value)
    if kind == "cache":
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("abc")
        file = repository / "snapshots" / "abc" / "model.safetensors"
        file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert find_weights("timm/resnet10t", None, "DEFAULT") == file
    assert find_weights("timm/resnet10t.c3_in1k", None, "DEFAULT") == file


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "timm/resnet10t"])
@pytest.mark.parametrize("weights", ["NO_SUCH", "nowhere/model.pt"])
def test_what_is_neither_is_told(name: str, weights: str) -> None:
    with pytest.raises(ValueError, match=rf"weights: {weights} is neither a file nor a folder"):
        find_weights(name, None, weights)


def test_timm_without_weights_is_told() -> None:
    timm = pytest.importorskip("timm")
    name = next(
        name
        for name in timm.list_models()
        if timm.models.get_pretrained_cfg(name) is not None
        and not timm.models.is_model_pretrained(name)
    )
    with pytest.raises(ValueError, match="has no trained weights"):
        find_weights(f"timm/{name}", None, "DEFAULT")


def test_a_folder_has_the_model_that_was_written_last_of_all(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no model\.safetensors, got a folder with config"):
        weights_file(tmp_path)
    (tmp_path / "masks.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="was not written to its end"):
        weights_file(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="was not written to its end"):
        weights_file(tmp_path)
    assert our_folder(tmp_path) is None
    (tmp_path / "provenance.json").write_text("{}")
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"
    assert our_folder(tmp_path) == our_folder(tmp_path / "model.safetensors") == tmp_path
