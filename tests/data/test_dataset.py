from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_images import encode, make_images, parquet_set, write_parquet
from torch import Tensor

from rayprune import config
from rayprune.data import InMemory, Split, load_data
from rayprune.data.dataset import split_rows

CPU = torch.device("cpu")


def everything(split: Split) -> tuple[Tensor, Tensor]:
    return next(split.batches([torch.arange(len(split))], device=CPU))


def levels(split: Split) -> Tensor:
    assert isinstance(split.samples, InMemory)
    return split.samples.inputs


def test_the_embedded_set_is_the_default() -> None:
    data = load_data(config.Data(), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (5400, 600, 2000)
    assert data.classes[0] == "T-shirt/top"
    assert len(data.classes) == 10
    assert data.example[0].shape[1:] == (1, 28, 28)
    assert data.num_skipped == 0
    inputs, targets = everything(data.train)
    assert inputs.mean().abs() < 1e-4
    assert (inputs.std() - 1).abs() < 1e-4
    both = torch.cat([targets, everything(data.val)[1]])
    assert both.bincount().tolist() == [600] * 10
    assert everything(data.test)[1].bincount().tolist() == [200] * 10


@pytest.mark.parametrize(("num", "fraction", "num_val"), [(20, 0.1, 2), (25, 0.1, 2), (35, 0.1, 4),
                                                          (7, 0.01, 1), (3, 0.99, 2)])  # fmt: skip
def test_training_and_validation_are_a_partition(num: int, fraction: float, num_val: int) -> None:
    train, val = split_rows(num, fraction, seed=3)
    assert len(val) == num_val
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(num))
    again, other = split_rows(num, fraction, seed=3), split_rows(1000, 0.1, seed=4)
    assert torch.equal(train, again[0])
    assert not torch.equal(other[1], split_rows(1000, 0.1, seed=5)[1])


def test_loaded_parts_are_that_partition(tmp_path: Path) -> None:
    data = load_data(config.Data(parquet=parquet_set(tmp_path), val_fraction=0.3), seed=7)
    train, val = split_rows(20, 0.3, seed=7)
    images = torch.from_numpy(make_images(20)).permute(0, 3, 1, 2)
    assert torch.equal(levels(data.train), images[train])
    assert torch.equal(levels(data.val), images[val])
    assert torch.equal(everything(data.val)[1], val % 3)


def bad_set(folder: Path) -> config.ParquetFiles:
    """Row 3 is damaged, row 5 has no label; one test image is damaged."""
    blobs = [encode(image) for image in make_images(12)]
    blobs[3] = blobs[3][:40]
    labels: list[int | None] = [i % 3 for i in range(12)]
    write_parquet(folder / "test.parquet", blobs, labels)
    labels[5] = None
    write_parquet(folder / "train.parquet", blobs, labels)
    return config.ParquetFiles(
        train=str(folder / "train.parquet"), test=str(folder / "test.parquet")
    )


@pytest.mark.parametrize("streaming", ["never", "always"])
def test_bad_samples_are_skipped_and_counted(tmp_path: Path, streaming: str) -> None:
    data = config.Data.model_validate(
        {"parquet": bad_set(tmp_path), "on_bad": "skip", "streaming": streaming}
    )
    loaded = load_data(data, seed=0)
    assert loaded.num_skipped == 3
    assert len(loaded.train) + len(loaded.val) == 10
    train, val = (list(zip(*everything(part), strict=True)) for part in (loaded.train, loaded.val))
    good = [row for row in range(12) if row not in (3, 5)]
    expected = [torch.from_numpy(make_images(12)[row]).permute(2, 0, 1) for row in good]
    train_rows, val_rows = split_rows(10, data.val_fraction, seed=0)
    norm = loaded.train.normalisation
    assert norm is not None
    for part, rows in ((train, train_rows), (val, val_rows)):
        for (inputs, target), row in zip(part, rows.tolist(), strict=True):
            assert torch.equal(inputs, norm(expected[row]))
            assert target == good[row] % 3


@pytest.mark.parametrize(("streaming", "workers"), [("never", 0), ("always", 0), ("always", 2)])
def test_a_damaged_image_is_named(tmp_path: Path, streaming: str, workers: int) -> None:
    files = parquet_set(tmp_path)
    blobs = [encode(image) for image in make_images(20)]
    blobs[18] = blobs[18][:-30]
    write_parquet(tmp_path / "train.parquet", blobs, [i % 3 for i in range(20)])
    data = config.Data.model_validate(
        {"parquet": files, "streaming": streaming, "loader_workers": workers}
    )
    with pytest.raises(ValueError, match=r"train.parquet, row 18: .*decoded.*on_bad: skip") as info:
        everything(load_data(data, seed=0).train)
    assert "Traceback" not in str(info.value)


@pytest.mark.parametrize("streaming", ["never", "always"])
def test_sizes_must_be_equal_or_resized(tmp_path: Path, streaming: str) -> None:
    files = parquet_set(tmp_path)
    blobs = [encode(image) for image in [*make_images(17), make_images(1, side=15)[0]]]
    write_parquet(tmp_path / "train.parquet", blobs, [i % 3 for i in range(18)])
    fields = {"parquet": files, "streaming": streaming, "loader_workers": 0}
    with pytest.raises(
        ValueError, match=r"row 17: .* got \(3, 15, 15\) after \(3, 12, 12\).*resize"
    ):
        load_data(config.Data.model_validate(fields), seed=0)
    data = load_data(config.Data.model_validate(fields | {"resize": 10}), seed=0)
    assert data.example[0].shape[1:] == (3, 10, 10)
    assert everything(data.train)[0].shape[1:] == (3, 10, 10)


def test_a_grey_image_among_coloured_ones_becomes_coloured(tmp_path: Path) -> None:
    files = parquet_set(tmp_path)
    grey = make_images(1, channels=1)[0]
    blobs = [encode(grey), *map(encode, make_images(5))]
    write_parquet(tmp_path / "train.parquet", blobs, [0, 1, 2, 0, 1, 2])
    data = load_data(config.Data(parquet=files), seed=0)
    assert data.example[0].shape[1:] == (3, 12, 12)
    images = torch.cat([levels(data.train), levels(data.val)])
    assert (images == torch.from_numpy(grey)).flatten(1).all(1).any()


def test_auto_augments_by_what_the_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = config.Data(parquet=parquet_set(tmp_path / "grey", channels=1))
    colour = config.Data(parquet=parquet_set(tmp_path / "colour"), loader_workers=0)
    assert load_data(grey, seed=0).train.augmentation == "none"
    assert load_data(colour, seed=0).train.augmentation == "crop_flip"
    resized = colour.model_copy(update={"resize": 10})
    assert load_data(resized, seed=0).train.augmentation == "crop_flip"
    monkeypatch.setattr("rayprune.data.reading.LARGE_BYTES", 1000)
    large = load_data(resized, seed=0)
    assert large.train.augmentation == "imagenet"
    assert not isinstance(large.train.samples, InMemory)
    assert large.val.augmentation == large.test.augmentation == "none"
    assert not isinstance(load_data(colour, seed=0).train.samples, InMemory)
    with pytest.raises(ValueError, match="streaming: never keeps images in their final size"):
        load_data(resized.model_copy(update={"streaming": "never"}), seed=0)


def test_imagenets_normalisation_comes_with_its_augmentation(tmp_path: Path) -> None:
    files = parquet_set(tmp_path)
    data = config.Data(parquet=files, resize=10, augment="imagenet", loader_workers=0)
    normalisation = load_data(data, seed=0).train.normalisation
    assert normalisation is not None
    black, white = normalisation(torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    assert torch.allclose(
        black.flatten(), torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    )
    assert torch.allclose(
        white.flatten(), torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    )
