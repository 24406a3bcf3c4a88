from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import make_images, parquet_set

from rayprune.data.augment import NUM_RANDOMS, center_crop, random_resized_crop
from rayprune.data.parquet import open_parquet
from rayprune.data.reader import Reader, read_all, readable_rows, stream
from rayprune.data.sources import BadSampleError, TensorRows


def rows(num: int, side: int) -> TensorRows:
    images = torch.from_numpy(make_images(num, side=side)).permute(0, 3, 1, 2)
    return TensorRows("made", images, torch.arange(num))


class SomeBad(TensorRows):
    """Every seventh row cannot be read."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        if row % 7 == 6:
            raise BadSampleError(self.place(row), "made so")
        return super().__getitem__(row)


def test_every_sample_is_cropped_by_its_own_numbers() -> None:
    source, randoms = rows(5, 30), torch.rand(3, NUM_RANDOMS)
    reader = Reader(source, (3, 16, 16), 16, is_imagenet=True)
    request = (np.array([4, 0, 4]), randoms.numpy())
    ((images, targets, own),) = stream(reader, [request], num_workers=0, pin_memory=False)
    for image, row, numbers in zip(images, (4, 0, 4), randoms.tolist(), strict=True):
        assert torch.equal(image, random_resized_crop(source.inputs[row], numbers, 16))
    assert targets.tolist() == [4, 0, 4]
    assert own is not None
    assert torch.equal(torch.as_tensor(own), randoms)


def test_without_numbers_the_centre_is_kept() -> None:
    source = rows(2, 30)
    image, _ = Reader(source, (3, 14, 14), 14, is_imagenet=True, crop=224 / 256)(1)
    assert torch.equal(image, center_crop(source.inputs[1], 14, 224 / 256))
    image, _ = Reader(source, (3, 14, 14), 14)(1)
    assert torch.equal(image, center_crop(source.inputs[1], 14))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(num_threads: int) -> None:
    source = rows(300, 65)
    source = SomeBad(source.name, source.inputs, source.targets)
    reader = Reader(source, (3, 65, 65))
    images, targets = read_all(reader, torch.uint8, num_threads=num_threads, on_bad="skip")
    good = torch.tensor([row for row in range(300) if row % 7 != 6])
    assert torch.equal(images, source.inputs[good])
    assert torch.equal(targets, good)
    with pytest.raises(BadSampleError, match="made, row 6: made so"):
        read_all(reader, torch.uint8, num_threads=num_threads, on_bad="error")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_readable_rows_are_those_that_can_be_read(num_workers: int) -> None:
    source = rows(300, 4)
    reader = Reader(SomeBad(source.name, source.inputs, source.targets), (3, 4, 4))
    found = readable_rows(reader, num_workers=num_workers)
    assert found.tolist() == [row for row in range(300) if row % 7 != 6]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    source = open_parquet(parquet_set(tmp_path), on_bad="skip").train
    source.numbers.fill_(-1)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"none of 20 samples can be read, first .*row 0"):
        read_all(Reader(source, (3, 12, 12)), torch.uint8, num_threads=1, on_bad="skip")
