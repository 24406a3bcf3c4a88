"""Trained weights into a network: what fits is taken over, and what doesn't is all named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rayprune.models import build_model
from rayprune.models.weights import Expected, load_weights_


def saved(name: str, file: Path, *, num_classes: int = 10) -> dict[str, Tensor]:
    weights = build_model(name, num_classes=num_classes).state_dict()
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    return weights


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def load(model: nn.Module, given: dict[str, Any], **how: Any) -> tuple[str, ...]:
    return load_weights_(model, given, "FILE", **how)


def lines_of(model: nn.Module, given: dict[str, Any], **how: Any) -> list[str]:
    with pytest.raises(ValueError, match=r"^experiment\.model\.weights: FILE does not fit") as told:
        load(model, given, **how)
    return [line.strip() for line in str(told.value).split("\n")[1:]]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "mnasnet0_5", "timm/resnet10t"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back_from_a_file(
    name: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    file = tmp_path / f"model{suffix}"
    weights = saved(name, file)
    with caplog.at_level(logging.INFO, "rayprune"):
        loaded = build_model(name, num_classes=10, weights=str(file)).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in weights.items())
    assert not caplog.records


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_stripped(prefix: str) -> None:
    trained, model = small(), small()
    load(model, {prefix + name: tensor for name, tensor in trained.state_dict().items()})
    assert torch.equal(model[3].weight, trained[3].weight)


def test_a_prefix_that_the_network_has_stays() -> None:
    """As of a network whose part is called model."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    trained, model = Whole(), Whole()
    load(model, trained.state_dict())
    assert torch.equal(model.model.weight, trained.model.weight)


def test_every_name_and_shape_that_does_not_fit_is_told_with_the_nearest() -> None:
    given = small().state_dict()
    given["conv.weight"] = given.pop("0.weight")
    given["1.weights"] = given.pop("1.weight")
    given["1.bias"] = torch.zeros(5)
    given["left.over"] = torch.zeros(7)
    assert sorted(lines_of(small(), given)) == [
        "1.bias is (5,) in the file, (4,) in the network",
        "missing: 0.weight (4, 3, 3, 3); nearest in the file: conv.weight (4, 3, 3, 3)",
        "missing: 1.weight (4,); nearest in the file: 1.weights (4,)",
        "unknown: 1.weights (4,); nearest of the network: 1.weight (4,)",
        "unknown: conv.weight (4, 3, 3, 3); nearest of the network: 0.weight (4, 3, 3, 3)",
        "unknown: left.over (7,)",
    ]


def test_of_another_network_every_tensor_is_named(tmp_path: Path) -> None:
    saved("resnet20", tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"experiment\.model\.weights: .*does not fit") as told:
        build_model("resnet32", num_classes=10, weights=str(tmp_path / "model.pt"))
    assert str(told.value).count("missing: ") == 12 * 5


def test_old_files_without_counters_are_taken() -> None:
    given = {k: v for k, v in small().state_dict().items() if "num_batches" not in k}
    load(small(), given)


def test_a_counter_may_be_a_number() -> None:
    model = small()
    load(model, {**small().state_dict(), "1.num_batches_tracked": 7, "epoch": 3})
    assert int(model[1].num_batches_tracked) == 7


class Tied(nn.Module):
    """As a language model's, whose file names one of two."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.embedding = nn.Linear(3, 5, bias=False), nn.Embedding(5, 3)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("name", ["head.weight", "embedding.weight"])
def test_of_tied_weights_one_name_is_enough(name: str) -> None:
    model, weight = Tied(), torch.rand(5, 3)
    load(model, {name: weight})
    assert torch.equal(model.embedding.weight, weight) and model.head.weight.equal(weight)
    lines = lines_of(Tied(), {"other": weight})
    assert [line.split(" ")[1] for line in lines] == ["head.weight", "embedding.weight", "other"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_told(kind: torch.dtype) -> None:
    given = {k: v.to(kind) if v.is_floating_point() else v for k, v in small().state_dict().items()}
    model = small()
    (note,) = load(model, given)
    assert note == f"experiment.model.weights: FILE holds {str(kind)[6:]}, taken as float32"
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, given["0.weight"].float())


@pytest.mark.parametrize("kind", ["int32", "complex64", "qint8"])
def test_integers_and_quantised_weights_are_refused(kind: str) -> None:
    weight = torch.ones(2, 4)
    wrong = (
        torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
        if kind == "qint8"
        else weight.to(getattr(torch, kind))
    )
    (line,) = lines_of(small(), {**small().state_dict(), "3.weight": wrong})
    assert line.startswith(f"3.weight is {kind} in the file, float32 in the network")


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet20", "fc"), ("mobilenet_v3_small", "classifier.3"), ("squeezenet1_1", "classifier.1")],
)
def test_only_a_head_of_other_classes_may_start_fresh_and_is_told(
    name: str, head: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "model.safetensors"
    weights = saved(name, file)
    message = rf"head is for 10 classes in the file, {head}\.weight .* data has 4.*new_head: true"
    with pytest.raises(ValueError, match=message):
        build_model(name, num_classes=4, weights=str(file))
    torch.manual_seed(5)
    fresh = build_model(name, num_classes=4).state_dict()
    torch.manual_seed(5)
    with caplog.at_level(logging.INFO, "rayprune"):
        model = build_model(name, num_classes=4, weights=str(file), new_head=True)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, (fresh if key.startswith(head) else weights)[key]), key
    assert f"{head}.weight, {head}.bias start fresh" in caplog.text


@pytest.mark.parametrize("head", [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_heads_may_be_several_and_any_convolution(head: type[nn.Module]) -> None:
    def build(num_classes: int) -> nn.Module:
        sizes = () if head is nn.Linear else (1,)
        heads = (head(3, num_classes, *sizes) for _ in range(2))
        return nn.Sequential(nn.Linear(2, 3), *heads, nn.BatchNorm1d(2))

    trained, model = build(5), build(4)
    (note,) = load(model, trained.state_dict(), expected=Expected(4), new_head=True)
    assert "1.weight, 1.bias, 2.weight, 2.bias start fresh" in note
    assert torch.equal(model[0].weight, trained[0].weight)


def test_a_fresh_head_excuses_no_other_layer() -> None:
    given = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 5)).state_dict()
    model = nn.Sequential(nn.Linear(7, 3), nn.Linear(3, 4))
    lines = lines_of(model, given, expected=Expected(4), new_head=True)
    assert lines == ["0.weight is (3, 6) in the file, (3, 7) in the network"]


def test_other_channels_say_what_to_bring_the_images_to(tmp_path: Path) -> None:
    saved("resnet20", tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"conv1\.weight .* 3 channels.*data\.channels: 3$"):
        build_model("resnet20", num_classes=10, in_channels=1, weights=str(tmp_path / "model.pt"))


def test_what_depends_on_unknown_data_is_left_alone() -> None:
    given = small().state_dict()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1000))
    unknown = Expected(1000, 1, is_certain=False)
    load(model, given, expected=unknown)
    del given["1.bias"]
    assert lines_of(model, given, expected=unknown) == ["missing: 1.bias (4,)"]


def test_nothing_is_loaded_where_something_does_not_fit() -> None:
    model, given = small(), small().state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lines_of(model, {**given, "3.bias": torch.zeros(3)})
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_weights_of_training_that_diverged_are_told() -> None:
    trained, model = nn.Linear(2, 2).state_dict(), nn.Linear(2, 2)
    trained["bias"] = torch.tensor([1.0, float("nan")])
    with pytest.raises(ValueError, match="does not fit the network:\n  bias has NaN or infinity"):
        load_weights_(model, trained, "net.pt")


class Attention(nn.Linear):
    """Keeps the mask of what came before in a buffer."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))


def test_a_buffer_may_be_infinite_and_no_weight_may() -> None:
    model, trained = Attention(), Attention().state_dict()
    load_weights_(model, trained, "net.pt")
    assert torch.equal(model.weight, trained["weight"])
    trained["mask"][0, 0], trained["bias"] = float("nan"), torch.tensor([1.0, float("inf")])
    with pytest.raises(ValueError, match=r"bias has NaN or infinity in it\n  mask has NaN"):
        load_weights_(model, trained, "net.pt")
