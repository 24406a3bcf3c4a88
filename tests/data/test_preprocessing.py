"""How images become inputs: normalised, resized and cropped as the weights were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_images import make_images, parquet_set
from torch import Tensor
from torchvision.transforms import v2 as tv

from rayprune import config
from rayprune.checks import check_parts
from rayprune.config.preprocessing import Preprocessing
from rayprune.data import Dataset, load_data

TRAINED = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 10, 0.8, "bicubic")


def loaded(folder: Path, trained: Preprocessing | None = None, **fields: Any) -> Dataset:
    files = parquet_set(folder, channels=fields.pop("file_channels", 3))
    data = config.Data.model_validate({"parquet": files, "loader_workers": 0, **fields})
    return load_data(data, seed=0, trained=trained)


def inputs_of(dataset: Dataset) -> Tensor:
    """The test images, as they come to the network."""
    return dataset.test.first(len(dataset.test), torch.device("cpu"))[0]


def levels(channels: int = 3) -> Tensor:
    images = torch.from_numpy(make_images(8, channels=channels, seed=1)).float() / 255
    return images[:, None] if channels == 1 else images.permute(0, 3, 1, 2)


def normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    mean, std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    return (images - mean) / std


def test_auto_is_what_the_weights_were_trained_with(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, TRAINED)
    expected = normalised(levels(), TRAINED.mean, TRAINED.std)
    assert torch.allclose(inputs_of(dataset), expected, atol=1e-5)
    assert dataset.preprocessing is not None
    assert dataset.preprocessing["mean"] == pytest.approx(list(TRAINED.mean))
    assert dataset.preprocessing["resize"] is None


def test_auto_without_weights_is_of_the_training_images(tmp_path: Path) -> None:
    dataset = loaded(tmp_path)
    assert dataset.preprocessing is not None
    train = dataset.train.first(len(dataset.train), torch.device("cpu"))[0]
    assert train.mean((0, 2, 3)).abs().max() < 1e-4
    again = loaded(
        tmp_path / "again", normalize={k: dataset.preprocessing[k] for k in ("mean", "std")}
    )
    assert torch.allclose(inputs_of(again), inputs_of(dataset), atol=1e-4)


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("none", [0.0], [1.0]),
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        ({"mean": [0.1], "std": [0.4]}, [0.1], [0.4]),
    ],
)
def test_what_is_given_comes_before_auto(
    normalize: Any, mean: Any, std: Any, tmp_path: Path
) -> None:
    dataset = loaded(tmp_path, TRAINED, normalize=normalize)
    assert torch.allclose(inputs_of(dataset), normalised(levels(), mean, std), atol=1e-5)


def test_evaluation_is_resized_and_cropped_as_the_weights_were(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, TRAINED, resize="auto", normalize="none")
    images = torch.from_numpy(make_images(8, seed=1)).permute(0, 3, 1, 2)
    resized = tv.functional.resize(images, [12, 12], tv.InterpolationMode.BICUBIC)  # 10 / .8
    assert torch.allclose(inputs_of(dataset), resized[:, :, 1:11, 1:11] / 255, atol=1e-6)
    assert dataset.preprocessing == {
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "resize": 10,
        "eval_crop": 0.8,
        "interpolation": "bicubic",
        "channels": 3,
    }


def test_fields_come_before_what_the_weights_were_trained_with(tmp_path: Path) -> None:
    fields = {"resize": 8, "eval_crop": 0.5, "interpolation": "bilinear", "normalize": "none"}
    images = torch.from_numpy(make_images(8, seed=1)).permute(0, 3, 1, 2)
    resized = tv.functional.resize(images, [16, 16])
    found = inputs_of(loaded(tmp_path, TRAINED, **fields))
    assert torch.allclose(found, resized[:, :, 4:12, 4:12] / 255, atol=1e-6)


@pytest.mark.parametrize("streaming", ["auto", "always"])
def test_grey_images_become_coloured(streaming: str, tmp_path: Path) -> None:
    dataset = loaded(tmp_path, TRAINED, channels=3, file_channels=1, streaming=streaming)
    assert dataset.num_channels == 3 and dataset.example[0].shape == (1, 3, 12, 12)
    grey = levels(1).expand(-1, 3, -1, -1)
    assert torch.allclose(
        inputs_of(dataset), normalised(grey, TRAINED.mean, TRAINED.std), atol=1e-5
    )


@pytest.mark.parametrize("streaming", ["auto", "always"])
def test_coloured_images_become_grey(streaming: str, tmp_path: Path) -> None:
    dataset = loaded(tmp_path, channels=1, normalize="none", streaming=streaming)
    assert dataset.num_channels == 1
    expected = tv.functional.rgb_to_grayscale(levels())
    assert torch.allclose(inputs_of(dataset), expected, atol=1 / 255)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"resize: auto takes the size .* Write resize: 224"):
        loaded(tmp_path / "a", resize="auto")
    with pytest.raises(ValueError, match=r"imagenet is of 3 channels.*Add data.channels: 3"):
        loaded(tmp_path / "b", normalize="imagenet", file_channels=1)
    with pytest.raises(ValueError, match=r"normalize is of 3 channels.*Add data.channels: 3"):
        loaded(tmp_path / "c", TRAINED, file_channels=1)
    with pytest.raises(ValueError, match=r"levels from 0 to 1, got .*Divide them by 255"):
        config.Normalize(mean=(125.0,), std=(60.0,))
    with pytest.raises(ValueError, match="eval_crop goes with resize"):
        config.Data(eval_crop=0.5)


def four_channels() -> dict[str, Any]:
    images = torch.zeros(8, 4, 4, 4, dtype=torch.uint8)
    images[::2, :3] = 200  # the last channel is 0 everywhere
    return {"train": (images, torch.arange(8) % 2), "test": (images, torch.arange(8) % 2)}


def test_what_one_network_was_trained_with_serves_the_next_one() -> None:
    """Also of four channels, one of which is the same everywhere."""
    data = config.Data(target=f"{__name__}:four_channels")
    first = load_data(data, seed=0)
    assert first.preprocessing is not None and first.preprocessing["std"][3] == 1 / 255
    mean, std = (tuple(first.preprocessing[name]) for name in ("mean", "std"))
    again = load_data(data, seed=0, trained=Preprocessing(mean, std))
    assert torch.equal(inputs_of(again), inputs_of(first))
    with pytest.raises(ValueError, match=r"of 3 channels, these images have 4\. Write data\.norm"):
        load_data(data, seed=0, trained=TRAINED)


def test_a_size_that_nothing_says_is_told_before_a_study() -> None:
    study = config.Study.model_validate({"experiment": {"data": {"resize": "auto"}}})
    with pytest.raises(ValueError, match=r"resize: auto takes the size .* Write resize: 224"):
        check_parts(study, [])
