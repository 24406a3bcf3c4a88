"""Nests of tensors, and samples that are not one image with a class."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprune import config
from rayprune.data import InMemory, load_data
from rayprune.data.nests import as_tensors, map_tensors, num_samples, tensors_in

CPU = torch.device("cpu")
Point = namedtuple("Point", "x y")


def test_a_nest_keeps_its_shape() -> None:
    nest = {"a": (torch.ones(2), [torch.zeros(2), "text"]), "b": Point(torch.ones(2), None)}
    doubled = map_tensors(lambda tensor: 2 * tensor, nest)
    assert [tensor.tolist() for tensor in tensors_in(doubled)] == [[2, 2], [0, 0], [2, 2]]
    assert doubled["a"][1][1] == "text" and isinstance(doubled["b"], Point)
    assert num_samples(nest) == 2
    assert num_samples((torch.ones(2), torch.ones(3))) is None
    assert num_samples({"a": torch.ones(())}) is None


def test_numbers_become_tensors() -> None:
    made = as_tensors({"age": 3.5, "ids": np.arange(3), "kind": 2, "name": "x"})
    assert made["age"].dtype == torch.float32 and made["kind"].dtype == torch.int64
    assert made["ids"].tolist() == [0, 1, 2] and made["name"] == "x"


class Sentences:
    """Token ids of different lengths."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, row: int) -> tuple[list[int], int]:
        return [row] * (row % 4 + 1), row % 3


def pad(samples: list[tuple[list[int], int]]) -> tuple[dict[str, Tensor], Tensor]:
    longest = max(len(ids) for ids, _ in samples)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in samples])
    lengths = torch.tensor([len(ids) for ids, _ in samples])
    return {"ids": ids, "lengths": lengths}, torch.tensor([label for _, label in samples])


def sentences(collate: Any = pad) -> dict[str, Any]:
    parts = {"train": Sentences(20), "test": Sentences(7), "classes": ["a", "b", "c"]}
    return parts | ({"collate": collate} if collate else {})


def not_collated() -> dict[str, Any]:
    return sentences(None)


def badly_collated() -> dict[str, Any]:
    return sentences(lambda samples: torch.zeros(2))


def tokens() -> dict[str, Any]:
    def part(num: int) -> tuple[dict[str, Tensor], Tensor]:
        ids = torch.arange(num)[:, None].expand(-1, 5)
        return {"ids": ids, "mask": ids > 1}, torch.arange(num) % 3

    return {"train": part(20), "test": part(7)}


def angles() -> dict[str, Any]:
    def part(num: int) -> tuple[Tensor, dict[str, Tensor]]:
        images = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        return images, {"angle": torch.arange(num) / 2}

    return {"train": part(20), "test": part(7)}


class Angles:
    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, float]]:
        images, targets = angles()["train"]
        return images[row], {"angle": float(targets["angle"][row])}


def angles_row_by_row() -> dict[str, Any]:
    return {"train": Angles(), "test": Angles()}


def data_of(function: str, **fields: Any) -> config.Data:
    return config.Data.model_validate({"target": f"{__name__}:{function}", **fields})


def all_of(split: Any) -> tuple[Any, Any]:
    return split.first(len(split), CPU)


def test_inputs_may_be_several_tensors() -> None:
    data = load_data(data_of("tokens"), seed=0)
    assert data.classes == ("0", "1", "2")
    assert data.num_channels is None and data.preprocessing is None
    assert isinstance(data.train.samples, InMemory)
    inputs, targets = all_of(data.test)
    assert inputs["ids"].shape == (7, 5) and inputs["mask"].dtype == torch.bool
    assert targets.tolist() == [row % 3 for row in range(7)]
    both = torch.cat([all_of(part)[0]["ids"][:, 0] for part in (data.train, data.val)])
    assert both.sort().values.tolist() == list(range(20))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collate_makes_the_batches(workers: int) -> None:
    data = load_data(data_of("sentences", loader_workers=workers), seed=0)
    rows = torch.tensor([0, 3, 1])
    ((inputs, targets),) = data.test.batches([rows], device=CPU)
    expected, labels = pad([Sentences(7)[int(row)] for row in rows])
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    assert torch.equal(targets, labels)
    assert data.example[0]["ids"].shape == (1, 1)


def test_unequal_samples_without_a_collate_are_told() -> None:
    with pytest.raises(ValueError, match=r"train, row 0: samples of a batch must have .*`collate`"):
        load_data(data_of("not_collated"), seed=0)


def test_a_collate_returns_a_pair() -> None:
    with pytest.raises(ValueError, match=r"train, row 0: collate must return \(inputs, targets\)"):
        load_data(data_of("badly_collated", loader_workers=0), seed=0)


@pytest.mark.parametrize("function", ["angles", "angles_row_by_row"])
@pytest.mark.parametrize("streaming", ["auto", "always"])
def test_images_may_have_targets_of_any_kind(function: str, streaming: str) -> None:
    """They are normalised all the same."""
    fields = {"streaming": streaming, "loader_workers": 0}
    data = load_data(data_of(function, **fields), seed=0, has_classes=False)
    assert data.classes == () and data.num_channels == 1
    assert data.train.augmentation == "none"
    inputs, targets = all_of(data.train)
    assert inputs.dtype == torch.float32 and abs(float(inputs.mean())) < 1e-5
    rows = (targets["angle"] * 2).long()
    levels = rows.float().view(-1, 1, 1, 1).expand_as(inputs)
    assert torch.allclose((levels - levels.mean()) / levels.std(correction=0), inputs, atol=1e-4)


def test_targets_that_are_no_classes_need_a_task() -> None:
    with pytest.raises(ValueError, match=r"must be class numbers.*experiment\.task\.target"):
        load_data(data_of("angles"), seed=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"resize": 8},
        {"channels": 3},
        {"augment": "crop"},
        {"normalize": {"mean": [0.5], "std": [0.5]}},
        {"normalize": "imagenet"},
    ],
)
def test_what_is_of_images_is_refused_for_tokens(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"experiment\.data\.{next(iter(fields))} is of images"):
        load_data(data_of("tokens", **fields), seed=0)


def test_images_do_not_move_without_their_targets() -> None:
    with pytest.raises(ValueError, match="do not move along with their images"):
        load_data(data_of("angles", augment="crop_flip"), seed=0, has_classes=False)


class Pairs:
    """Two tensors as inputs, by position."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> tuple[tuple[Tensor, Point], int]:
        return (torch.full((3,), row), Point(torch.full((2,), row), float(row))), row % 2


def pairs() -> dict[str, Any]:
    return {"train": Pairs(), "test": Pairs(), "classes": ["a", "b"]}


def collated_pairs() -> dict[str, Any]:
    return pairs() | {"collate": collate_with_numpy}


def collate_with_numpy(samples: list[Any]) -> tuple[Any, Any]:
    first = np.stack([given[0].numpy() for given, _ in samples])
    return (first, first + 1), np.array([label for _, label in samples])


@pytest.mark.parametrize("fields", [{}, {"streaming": "always"}])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_tuple_of_inputs_stays_one(fields: dict[str, Any], workers: int) -> None:
    """A model takes a tuple by position, and a list as one argument."""
    data = load_data(data_of("pairs", loader_workers=workers, **fields), seed=0)
    batches = data.test.batches([torch.tensor([4, 2])], device=CPU)
    for inputs, _ in (*batches, data.example):
        assert isinstance(inputs, tuple) and isinstance(inputs[1], Point)


def test_what_a_collate_makes_of_numpy_are_tensors() -> None:
    data = load_data(data_of("collated_pairs", loader_workers=0), seed=0)
    ((inputs, targets),) = data.test.batches([torch.tensor([4, 2])], device=CPU)
    for made in (inputs, data.example[0]):
        assert isinstance(made, tuple) and isinstance(made[0], Tensor)
    assert inputs[0][:, 0].tolist() == [4, 2] and targets.tolist() == [0, 0]


def test_pinned_memory_keeps_tuples(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    from rayprune.data.reader import _Batch

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 1)  # there is no GPU here
    pinned = pin_memory(_Batch((torch.ones(2), torch.ones(2)), [torch.ones(1)], None))
    assert isinstance(pinned.inputs, tuple) and pinned.inputs[1].tolist() == [2, 2]
    assert isinstance(pinned.targets, list)


def texts_beside_tensors() -> dict[str, Any]:
    inputs = {"ids": torch.zeros(4, 2), "text": ["a", "b", "c", "d"]}
    return {"train": (inputs, torch.zeros(4).long()), "test": (inputs, torch.zeros(4).long())}


def arrays_beside_tensors() -> dict[str, Any]:
    inputs = {"ids": torch.zeros(4, 2), "lengths": np.arange(4)}
    return {"train": (inputs, torch.zeros(4).long()), "test": (inputs, torch.zeros(4).long())}


def texts_in_samples() -> dict[str, Any]:
    samples = [({"ids": torch.zeros(2), "text": "a"}, 0)] * 4
    return {"train": samples, "test": samples, "classes": ["a"]}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("texts_beside_tensors", "train must be .* of tensors alone, got str among them"),
        ("arrays_beside_tensors", "train must be .* of tensors alone, got ndarray among them"),
        ("texts_in_samples", "train, row 0: a sample must be .*, got str. Leave it out"),
    ],
)
def test_what_is_no_tensor_is_told(function: str, message: str) -> None:
    """Nothing could take a batch's part of it: each batch would have all of it."""
    with pytest.raises(ValueError, match=message):
        load_data(data_of(function), seed=0)


def videos() -> dict[str, Any]:
    def part(num: int) -> tuple[Tensor, Tensor]:
        return torch.rand(num, 2, 3, 4, 4), torch.arange(num) % 2

    return {"train": part(8), "test": part(4)}


def series() -> dict[str, Any]:
    def part(num: int) -> tuple[Tensor, Tensor]:
        return torch.rand(num, 5, 3), torch.arange(num) % 2

    return {"train": part(8), "test": part(4)}


@pytest.mark.parametrize("function", ["videos", "series"])
def test_tensors_of_more_or_fewer_dimensions_are_no_images(function: str) -> None:
    data = load_data(data_of(function), seed=0)
    assert data.num_channels is None and data.preprocessing is None
    inputs, _ = all_of(data.test)
    assert torch.equal(inputs, data.test.samples.inputs)  # type: ignore[attr-defined]


class Damaged(Pairs):
    """Every fifth sample cannot be read."""

    def __getitem__(self, row: int) -> Any:
        if row % 5 == 4:
            raise OSError("damaged")
        return super().__getitem__(row)


def damaged() -> dict[str, Any]:
    return {"train": Damaged(), "test": Damaged(), "classes": ["a", "b"]}


@pytest.mark.parametrize("streaming", ["never", "always"])
def test_samples_that_cannot_be_read_are_skipped(streaming: str) -> None:
    fields = {"on_bad": "skip", "streaming": streaming, "loader_workers": 0}
    data = load_data(data_of("damaged", **fields), seed=0)
    inputs, targets = all_of(data.test)
    assert inputs[0][:, 0].tolist() == [row for row in range(20) if row % 5 != 4]
    assert len(targets) == 16 and data.num_skipped == 8
