"""Networks by name, from functions and files: what is built, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rayprune import config
from rayprune.models import build_model, check_model, check_weights
from rayprune.models.names import OURS

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
    with pytest.raises(ValueError, match=r"experiment\.model\.name.*3 channels.*data\.channels: 3"):
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

def takes_default(num_classes=5):
    return nn.Linear(3, num_classes)

def takes_weights(num_classes, weights):
    model = nn.Linear(3, num_classes)
    model.came_from = weights
    return model

def fails():
    raise KeyError("no")

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
def test_missing_weights_are_found_by_the_check(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: .*neither a file .*DEFAULT"):
        check_model(name, weights=str(tmp_path / "none.pt"))


def test_what_can_be_built_passes_the_check() -> None:
    for name in (*OURS, "resnet50", "vit_b_16"):
        check_model(name)


def test_without_classes_a_named_network_says_what_to_add(target: str) -> None:
    with pytest.raises(ValueError, match=r"Add model\.kwargs: \{num_classes: 1\}"):
        build_model("resnet20", num_classes=None)
    model = build_model("resnet20", num_classes=None, in_channels=None, kwargs={"num_classes": 1})
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 1)
    message = r"kwargs do not fit .*takes_both: missing a required argument"
    with pytest.raises(ValueError, match=message):
        build_model(target=f"{target}:takes_both", num_classes=None, in_channels=None)
    build_model(target=f"{target}:takes_nothing", num_classes=None, in_channels=None)


def test_a_function_that_takes_weights_gets_the_path_and_loads_them(
    target: str, tmp_path: Path
) -> None:
    """It may be a folder of any kind, as of a library's own."""
    (tmp_path / "brought").mkdir()
    fields = {"target": f"{target}:takes_weights", "weights": str(tmp_path / "brought")}
    model = build_model(**fields, num_classes=3)
    assert model.came_from == str(tmp_path / "brought")
    with pytest.raises(ValueError, match=r"model\.new_head: .*loads them itself"):
        check_model(**fields, new_head=True)
    with pytest.raises(ValueError, match=r"weights: .*nowhere is neither a file nor a folder"):
        build_model(target=fields["target"], weights="nowhere", num_classes=3)


def test_the_check_says_what_would_fail_before_it_does(target: str, tmp_path: Path) -> None:
    file, model = tmp_path / "model.pt", build_model("resnet20", num_classes=10)
    torch.save(model.half().state_dict(), file)
    here = config.Model(name="resnet20", weights=str(file))
    with pytest.raises(ValueError, match="head is for 10 classes"):
        check_weights(here, num_classes=4, in_channels=3)
    with pytest.raises(ValueError, match="does not fit the network"):
        check_weights(
            config.Model(name="resnet32", weights=str(file)), num_classes=10, in_channels=3
        )
    with pytest.raises(ValueError, match=r"model\.target: .*fails failed: KeyError: 'no'"):
        check_weights(
            config.Model(target=f"{target}:fails", weights=str(file)), num_classes=4, in_channels=3
        )


def test_the_check_warns_and_leaves_random_numbers_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(build_model("resnet20", num_classes=10).half().state_dict(), tmp_path / "model.pt")
    torch.manual_seed(0)
    model = config.Model(name="resnet20", weights=str(tmp_path / "model.pt"))
    check_weights(model, num_classes=10, in_channels=3)
    first = torch.rand(1)
    assert "float16, taken as float32" in caplog.text
    assert torch.equal(first, torch.rand(1, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("function", ["takes_both", "takes_default"])
def test_before_the_data_is_known_shapes_are_not_looked_at(
    target: str, function: str, tmp_path: Path
) -> None:
    """The network is built for made-up numbers of classes and channels."""
    trained = build_model(target=f"{target}:{function}", num_classes=7, in_channels=1)
    file, unknown = tmp_path / "model.pt", {"num_classes": None, "in_channels": None}
    model = config.Model(target=f"{target}:{function}", weights=str(file))
    torch.save(trained.state_dict(), file)
    check_weights(model, **unknown, is_certain=False)
    torch.save({**trained.state_dict(), "other": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"unknown: other \(2,\)"):
        check_weights(model, **unknown, is_certain=False)


def test_a_network_that_does_not_depend_on_the_data_is_checked_whole(
    target: str, tmp_path: Path
) -> None:
    torch.save(nn.Linear(2, 4).state_dict(), tmp_path / "model.pt")
    model = config.Model(target=f"{target}:takes_nothing", weights=str(tmp_path / "model.pt"))
    with pytest.raises(ValueError, match=r"weight is \(4, 2\) in the file, \(3, 2\)"):
        check_weights(model, num_classes=None, in_channels=None, is_certain=False)
