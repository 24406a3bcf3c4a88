"""Networks by name, from functions and files: what is built, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rayprune.models import build_model, check_model
from rayprune.models.build import OURS

QUICK = [name for name in OURS if name != "wrn_28_10"]  # 36 M weights: on meta alone


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32)], ids=["grey", "colour"])
@pytest.mark.parametrize("name", QUICK)
def test_all_of_ours_take_both_kinds_of_small_images(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, num_classes=7, in_channels=shape[1]).eval()
    with torch.no_grad():
        assert model(torch.zeros(shape)).shape == (2, 7)


@pytest.mark.parametrize("name", OURS)
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
        smaller = build_model("vit_b_16", num_classes=7, kwargs={"image_size": 64})
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    assert smaller.heads.head.out_features == 7


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_auxiliary_heads_has_one_output(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=6).train()
        assert model(torch.zeros(2, 3, 299, 299)).shape == (2, 6)


def test_torchvision_takes_three_channels_only() -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.name.*3 channels"):
        build_model("resnet18", num_classes=10, in_channels=1)


def test_timm_by_name_takes_grey_images() -> None:
    pytest.importorskip("timm")
    model = build_model("timm/resnet10t", num_classes=5, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(ValueError, match="Did you mean timm/resnet10t"):
        check_model("timm/resnet10tt")


def test_without_timm_its_names_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'rayprune\[timm\]'"):
        check_model("timm/resnet18")


MODULE = """
from torch import nn

def takes_both(num_classes, in_channels, hidden=4):
    first = nn.Linear(in_channels * 4, hidden)
    return nn.Sequential(nn.Flatten(), first, nn.Linear(hidden, num_classes))

def takes_nothing():
    return nn.Linear(2, 3)

def takes_more(num_classes, **more):
    return nn.Linear(len(more) + 1, num_classes)

def no_network():
    return 3

number = 3
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "made_networks"


def test_any_function_may_build_the_network(target: str) -> None:
    model = build_model(
        target=f"{target}:takes_both", kwargs={"hidden": 6}, num_classes=9, in_channels=1
    )
    assert model(torch.zeros(2, 1, 2, 2)).shape == (2, 9)
    assert model[1].out_features == 6
    assert isinstance(build_model(target=f"{target}:takes_nothing", num_classes=9), nn.Linear)


def test_a_function_is_given_only_what_it_names_and_kwargs(target: str) -> None:
    model = build_model(target=f"{target}:takes_more", kwargs={"width": 2}, num_classes=9)
    assert (model.in_features, model.out_features) == (2, 9)
    own = build_model(target=f"{target}:takes_more", kwargs={"num_classes": 4}, num_classes=9)
    assert own.out_features == 4


def test_a_function_of_torchvision() -> None:
    model = build_model(
        target="torchvision.models.segmentation:lraspp_mobilenet_v3_large",
        kwargs={"weights_backbone": None},
        num_classes=3,
    )
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 32, 32))["out"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "timm/resnet10t", None])
def test_arguments_that_do_not_fit_are_told(name: str | None, target: str) -> None:
    if name is not None and name.startswith("timm/"):
        pytest.importorskip("timm")
    where = {"name": name} if name else {"target": f"{target}:takes_both"}
    with pytest.raises(ValueError, match=r"experiment\.model\.kwargs do not fit .*wide"):
        build_model(**where, kwargs={"wide": 3}, num_classes=2, in_channels=3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_network", r"experiment\.model\.target.*nn\.Module, got int"),
        ("absent", r"experiment\.model\.target: made_networks has no function 'absent'"),
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


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_a_missing_weights_file_is_found_by_the_check(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: .*neither a file .*DEFAULT"):
        check_model(name, weights=str(tmp_path / "none.pt"))


def test_what_can_be_built_passes_the_check() -> None:
    for name in (*OURS, "resnet50", "vit_b_16"):
        check_model(name)
    check_model("resnet50", weights="IMAGENET1K_V2")
