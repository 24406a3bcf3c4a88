"""Networks by name, from functions and files: what is built, and what is refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rayprune.models import build_model, check_model, model_names

QUICK = [name for name in model_names() if name != "wrn_28_10"]  # 36 M weights: on meta alone


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32)], ids=["grey", "colour"])
@pytest.mark.parametrize("name", QUICK)
def test_all_of_ours_take_both_kinds_of_small_images(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, num_classes=7, in_channels=shape[1]).eval()
    with torch.no_grad():
        assert model(torch.zeros(shape)).shape == (2, 7)


@pytest.mark.parametrize("name", model_names())
def test_ours_build_without_memory(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=10)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "squeezenet1_1"])
def test_the_seed_decides_the_weights(name: str) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_model(name, num_classes=10).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_torchvision_by_name() -> None:
    with torch.device("meta"):
        model = build_model("resnet50", num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032


def test_torchvision_takes_three_channels_only() -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.name.*3 channels"):
        build_model("resnet18", num_classes=10, in_channels=1)


def test_timm_by_name_takes_grey_images() -> None:
    pytest.importorskip("timm")
    model = build_model("timm/resnet10t", num_classes=5, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(ValueError, match="timm/resnet10t"):
        check_model("timm/resnet10tt")


MODULE = """
from torch import nn

def takes_both(num_classes, in_channels, hidden=4):
    first = nn.Linear(in_channels * 4, hidden)
    return nn.Sequential(nn.Flatten(), first, nn.Linear(hidden, num_classes))

def takes_nothing():
    return nn.Linear(2, 3)

def no_network():
    return 3
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "made_networks"


def test_any_function_gives_the_network(target: str) -> None:
    model = build_model(
        target=f"{target}:takes_both", kwargs={"hidden": 6}, num_classes=9, in_channels=1
    )
    assert model(torch.zeros(2, 1, 2, 2)).shape == (2, 9)
    assert model[1].out_features == 6
    assert isinstance(build_model(target=f"{target}:takes_nothing", num_classes=9), nn.Linear)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_network", r"experiment\.model\.target.*nn\.Module, got int"),
        ("absent", r"experiment\.model\.target: cannot import"),
    ],
)
def test_functions_that_do_not_serve(target: str, function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(target=f"{target}:{function}", num_classes=2)


@pytest.mark.parametrize("name", ["resnet65", "small_cn", None])
def test_an_unknown_name_is_refused_before_anything_is_built(name: str | None) -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.name"):
        check_model(name)


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean resnet56"):
        check_model("resnet65")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_back_from_a_file(suffix: str, tmp_path: Path) -> None:
    saved = build_model("resnet20", num_classes=10).state_dict()
    file = str(tmp_path / f"model{suffix}")
    save_file(saved, file) if suffix == ".safetensors" else torch.save(saved, file)
    loaded = build_model("resnet20", num_classes=10, weights=file).state_dict()
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)


def test_only_the_head_may_have_another_size(tmp_path: Path) -> None:
    file = str(tmp_path / "model.safetensors")
    saved = build_model("resnet20", num_classes=10).state_dict()
    save_file(saved, file)
    with pytest.warns(UserWarning, match=r"fc\.\w+, fc\.\w+ start fresh"):
        model = build_model("resnet20", num_classes=4, weights=file)
    assert model.fc.out_features == 4
    assert torch.equal(model.conv1.weight, saved["conv1.weight"])
    with pytest.raises(ValueError, match=r"conv1\.weight of shape"):
        build_model("resnet20", num_classes=10, in_channels=1, weights=file)
    with pytest.raises(ValueError, match="another network"):
        build_model("resnet32", num_classes=10, weights=file)


def test_a_missing_weights_file_is_found_by_the_check(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.weights"):
        check_model("resnet20", weights=str(tmp_path / "none.pt"))


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        build_model("resnet20", num_classes=10, weights=str(tmp_path / "whole.pt"))
