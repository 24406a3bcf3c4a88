"""Start weights from files and from torchvision's entries: what is taken over, and what is not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from rayprune.models import build_model
from rayprune.models.weights import take_fitting_


def saved(name: str, file: Path, *, num_classes: int = 10) -> dict[str, Tensor]:
    weights = build_model(name, num_classes=num_classes).state_dict()
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    return weights


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "timm/resnet10t"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back_from_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    file = tmp_path / f"model{suffix}"
    weights = saved(name, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = build_model(name, num_classes=10, weights=str(file)).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in weights.items())


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet20", "fc"), ("mobilenet_v3_small", "classifier.3"), ("squeezenet1_1", "classifier.1")],
)
def test_only_a_head_of_another_size_starts_fresh(name: str, head: str, tmp_path: Path) -> None:
    """The head is the last layer, a convolution in some networks."""
    file = tmp_path / "model.safetensors"
    weights = saved(name, file)
    torch.manual_seed(5)
    fresh = build_model(name, num_classes=4).state_dict()
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match=rf"{head}\.weight, {head}\.bias start fresh"):
        model = build_model(name, num_classes=4, weights=str(file))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, (fresh if key.startswith(head) else weights)[key]), key


@pytest.mark.parametrize("head", [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_a_head_may_be_any_convolution(head: type[nn.Module]) -> None:
    def build(num_classes: int) -> nn.Module:
        sizes = () if head is nn.Linear else (1,)
        return nn.Sequential(nn.Linear(2, 3), head(3, num_classes, *sizes), nn.BatchNorm1d(2))

    trained, model = build(5), build(4)
    with pytest.warns(UserWarning, match=r"1\.weight, 1\.bias start fresh"):
        take_fitting_(model, trained.state_dict(), "trained")
    assert torch.equal(model[0].weight, trained[0].weight)


def test_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    saved("resnet20", file)
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: .*another network: missing"):
        build_model("resnet32", num_classes=10, weights=str(file))
    with pytest.raises(
        ValueError, match=r"has conv1\.weight of shape \(16, 3, 3, 3\), the network"
    ):
        build_model("resnet20", num_classes=10, in_channels=1, weights=str(file))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"hello", b"no weights" * 50])
def test_a_file_that_holds_no_weights_is_refused(
    suffix: str, content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: cannot read .*model"):
        build_model("lenet5", num_classes=10, weights=str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "must hold a state_dict"),
        ({"epoch": 3}, "must hold a state_dict"),
        (nn.Linear(2, 2), "cannot read"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    """A whole model would be code to run."""
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"experiment\.model\.weights: .*{message}"):
        build_model("lenet5", num_classes=10, weights=str(tmp_path / "other.pt"))


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet", "inception_v3"])
@pytest.mark.parametrize("num_classes", [1000, 3])
def test_an_entry_of_torchvision(
    name: str, num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be downloaded is made here, with the auxiliary heads that some files have."""
    options = {"aux_logits": True, "init_weights": False} if name != "squeezenet1_1" else {}
    ready = torchvision.models.get_model(name, **options).state_dict()
    entry = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(entry), "get_state_dict", lambda *_, **__: ready)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if num_classes == 3 else "error")
        model = build_model(name, weights="DEFAULT", num_classes=num_classes).eval()
    own = model.state_dict()
    taken = [key for key in own if torch.equal(own[key], ready[key])]
    assert len(own) - len(taken) == (0 if num_classes == 1000 else 2)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 96, 96)).shape == (1, num_classes)
